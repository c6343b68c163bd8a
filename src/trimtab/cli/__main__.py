"""``python -m trimtab.cli`` is the same as ``trimtab``."""

from trimtab.cli.main import main

raise SystemExit(main())
