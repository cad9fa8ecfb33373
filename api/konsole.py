"""jupyter-konsole on a live kernel, which the environment names; `cellshell console` starts it."""

from __future__ import annotations

import os
from typing import Any

from jupyter_kernel_client.konsoleapp import KonsoleApp


class Konsole(KonsoleApp):  # type: ignore[misc]
    """Ctrl-C is for the kernel, whoever started it."""

    def handle_sigint(self, *args: Any) -> None:
        if not self.shell._executing:
            raise KeyboardInterrupt
        self.kernel_client.interrupt_kernel()


def main() -> None:
    """What it leaves, it leaves running."""
    app = Konsole(
        server_url=os.environ["CELLSHELL_URL"],
        token=os.environ.get("CELLSHELL_TOKEN", ""),
        existing=os.environ["CELLSHELL_KERNEL"],
        confirm_exit=False,
    )
    app.initialize([])
    app.start()


if __name__ == "__main__":
    main()
