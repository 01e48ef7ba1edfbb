"""`python -m app.cli …` is `slipway …`."""

from app.cli.main import main

main()
