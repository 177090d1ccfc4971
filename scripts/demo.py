"""`make demo`: a package travels from upload to install, and attacks on its way are refused. Nothing is simulated.

Every step runs the real programs (countermark, countermark-server, countermark-ceremony, twine, uv, pip) as
subprocesses on loopback, and every refusal is checked: the demo exits 0 only if all acts went as told.
"""

from __future__ import annotations

import argparse
import io
import signal
import sys
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import demo_record  # noqa: E402
from tests.world import acts  # noqa: E402
from tests.world.stage import Stage, StoryError  # noqa: E402


class Recorder(io.StringIO):
    """Keeps what is written, and shows it all the same; no terminal, so without colours."""

    def __init__(self, shown: TextIO) -> None:
        """Everything goes to `shown`, too."""
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        """Show and keep."""
        self._shown.write(text)
        return super().write(text)

    def flush(self) -> None:
        """Let a person see it at once."""
        self._shown.flush()


def main() -> int:
    """Play the acts in order; exit status 0 only if every one went as told."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--keep", action="store_true", help="leave the service running and print its addresses"
    )
    parser.add_argument(
        "--record", action="store_true", help="write what is shown to README.md and docs/demo.md"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped then, too
    recorder = Recorder(sys.stdout)
    stage = Stage(ROOT / ".demo", out=recorder if arguments.record else sys.stdout)
    try:
        for act in acts.ACTS:
            stage.play(act)
        stage.curtain()
        if arguments.record:
            demo_record.record(ROOT, recorder.getvalue())
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
