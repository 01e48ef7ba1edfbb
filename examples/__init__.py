"""Small Pulumi programs that use components of this repository alone, without its stacks; the tests render them."""
