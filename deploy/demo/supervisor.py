"""Starts programs one after the other, restarts what dies, and stops all in the reverse order."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

UP_WITHIN = 60.0  # seconds for a program to answer on its ports
COLOURS = (36, 33, 35, 32, 34, 31)
# setpriv (util-linux) ends the programs even if the supervisor is killed.
TIED = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


class NotUp(Exception):
    """Raised when a program does not come up, or when one that runs once fails."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One program to run.

    It is up when all its `ports` answer (the keys are the variables that name them). A program that
    runs `once` has to end with 0 before the next one starts.
    """

    name: str
    command: list[str]
    ports: Mapping[str, int]
    once: bool


class Supervisor:
    """Runs programs in `directory` and prints what they say, each line with the program's name."""

    def __init__(self, directory: Path, env: Mapping[str, str]) -> None:
        self.directory, self.env = directory, env
        self._coloured = sys.stdout.isatty() and "NO_COLOR" not in env
        self._colours: dict[str, int] = {}
        self._running: list[tuple[Program, asyncio.Task[None]]] = []

    def say(self, name: str, text: str) -> None:
        """Print one line with the program's name before it."""
        prefix = f"{name:>9} | "
        if self._coloured:
            colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            prefix = f"\033[{colour}m{prefix}\033[0m"
        print(prefix + text, flush=True)  # noqa: T201  (this is a command's output)

    async def start(self, program: Program) -> None:
        """Start a program; wait until it is up, or has ended if it runs once. Raises NotUp."""
        self.say(program.name, "starts")
        if program.once:
            if code := await self._run(program):
                raise NotUp(f"{program.name} ended with {code}; its output is above")
            return
        self._running.append((program, asyncio.create_task(self._keep(program))))
        until = time.monotonic() + UP_WITHIN
        for port in program.ports.values():
            while not await _answers(port):
                if time.monotonic() > until:
                    raise NotUp(
                        f"{program.name} does not answer on port {port}; its output is above"
                    )
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Stop everything, the last started first."""
        while self._running:
            program, task = self._running.pop()
            self.say(program.name, "stops")
            task.cancel()
            await asyncio.wait([task])

    async def _keep(self, program: Program) -> None:
        pause = 1.0
        while True:
            started = time.monotonic()
            code = await self._run(program)
            if time.monotonic() - started > 30:
                pause = 1.0
            self.say(program.name, f"ended with {code}; starts again in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 30.0)

    async def _run(self, program: Program) -> int:
        process = await asyncio.create_subprocess_exec(
            *TIED,
            *program.command,
            env=self.env,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only us, and we stop all in order
        )
        reader = asyncio.create_task(self._read(program, process))
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 30)
            # Children that it left behind: epmd, or a node whose server script was killed.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            await asyncio.wait([reader], timeout=2)

    async def _read(self, program: Program, process: asyncio.subprocess.Process) -> None:
        assert process.stdout, "it was started with a pipe"
        while line := await process.stdout.readline():
            self.say(program.name, line.decode(errors="replace").rstrip())


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
