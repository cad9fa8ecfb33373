"""jupyter-konsole on a live kernel, which the environment names; `cellshell console` starts it."""

from __future__ import annotations

import os
from typing import Any

from jupyter_kernel_client.konsoleapp import KonsoleApp

LEAVING = frozenset({"exit", "quit", "exit()", "quit()"})


class Konsole(KonsoleApp):  # type: ignore[misc]
    """Ctrl-C is for the kernel, whoever started it; `exit` is not: the kernel would end."""

    def init_shell(self) -> None:
        super().init_shell()
        shell, run_cell = self.shell, self.shell.run_cell

        def run(cell: str, *args: Any, **options: Any) -> Any:
            if cell.strip() in LEAVING:
                return shell.ask_exit()
            return run_cell(cell, *args, **options)

        shell.run_cell = run

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
