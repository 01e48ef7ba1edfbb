"""What tests of several rooms share: servers that a test starts, hurts and ends by itself.

Nothing here is imported by the service.
"""
