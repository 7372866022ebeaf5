"""The demo of language models: SmolLM2-135M-Instruct in one layout, proven, and two answers streamed from it."""

import subprocess
import sys
from pathlib import Path

PROMPTS = ("What is the capital of France?", "用一句话介绍你自己。")


def main() -> int:
    model, folder, engine = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    command, repository = str(Path(sys.executable).with_name("repo-builder")), str(folder / engine)
    build = [command, "build", str(model), "--task", "text-generation", "--engine", engine, "--name", "smollm2"]
    build += ["--target", "26.07", "--max-seq-len", "2048", "--max-batch-size", "8", "--dtype", "float32"]
    build += ["--out", repository, "--report", str(folder / f"{engine}.json")]
    steps = [build, *([command, "chat", repository, "--prompt", prompt, "--max-tokens", "64"] for prompt in PROMPTS)]
    for step in steps:
        if code := subprocess.run(step, check=False).returncode:
            return code
    print(f"\nThe whole report: {folder / f'{engine}.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
