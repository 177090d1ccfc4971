"""`python -m countermark` is the `countermark` command."""

from countermark.cli import main

raise SystemExit(main())
