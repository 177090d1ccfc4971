"""`make demo`: a package travels from upload to install, and attacks on its way are refused. Nothing is simulated.

Every step runs the real programs (countermark, countermark-server, countermark-ceremony, twine, uv, pip) as
subprocesses on loopback, and every refusal is checked: the demo exits 0 only if all acts went as told.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.world import acts  # noqa: E402
from tests.world.stage import Stage, StoryError  # noqa: E402


def main() -> int:
    """Play the acts in order; exit status 0 only if every one went as told."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the service running and print its addresses"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped then, too
    stage = Stage(ROOT / ".demo")
    try:
        for act in acts.ACTS:
            stage.play(act)
        stage.curtain()
        if arguments.keep:
            stage.keep()
    except StoryError as error:
        stage.went_wrong(error)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        stage.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
