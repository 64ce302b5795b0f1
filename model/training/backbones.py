"""The backbones that training can start from: networks of `keras.applications`, as data."""

from dataclasses import dataclass
from typing import Literal

from model.artifact.card import Scaling

# As in Keras.
BackboneName = Literal["MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "EfficientNetV2B0"]

WEIGHTS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/"
# Sides in pixels for which MobileNetV2 has weights, for widths of up to 1.0. All others have only
# those of the last side, which fit any size.
SIDES = (96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Backbone:
    """A network without its top.

    `widths`: factors of the number of its channels for which Keras publishes weights.
    `scaling`: the pixel values that it was trained on.
    `scales_itself`: whether it has a layer that makes them of pixels of 0 to 255.
    `blocks`: the first layer of each block with which fine-tuning can start, from block 1 on. The
    input of this layer is the only one of its block.
    `fine_tune_from_block`: the default, from 1.
    `weights`: the address of its published weights below `WEIGHTS_URL`, for `width` and `side`.
    `md5`: the hashes of these weights by width, if Keras publishes them.
    """

    widths: tuple[float, ...]
    scaling: Scaling
    scales_itself: bool
    blocks: tuple[str, ...]
    fine_tune_from_block: int
    weights: str
    md5: dict[float, str]

    def weights_url(self, width: float, size: tuple[int, int]) -> str:
        """The address of its weights for pictures of `size`, (height, width) in pixels."""
        has_own = width <= 1 and size[0] == size[1] and size[0] in SIDES
        side = size[0] if has_own else SIDES[-1]
        return WEIGHTS_URL + self.weights.format(width=width, side=side)


BACKBONES: dict[BackboneName, Backbone] = {
    "MobileNetV2": Backbone(
        widths=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
        scaling="tf",
        scales_itself=False,
        blocks=tuple(f"block_{number}_expand" for number in range(1, 17)),
        fine_tune_from_block=11,
        weights="mobilenet_v2/"
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{width}_{side}_no_top.h5",
        md5={},
    ),
    "MobileNetV3Small": Backbone(
        widths=(0.75, 1.0),
        scaling="tf",
        scales_itself=True,
        blocks=tuple(f"expanded_conv_{number}_expand" for number in range(1, 11)),
        fine_tune_from_block=7,
        weights="mobilenet_v3/weights_mobilenet_v3_small_224_{width}_float_no_top_v2.h5",
        md5={
            0.75: "ebdb5cc8e0b497cd13a7c275d475c819",
            1.0: "d3e8ec802a04aa4fc771ee12a9a9b836",
        },
    ),
    "MobileNetV3Large": Backbone(
        widths=(0.75, 1.0),
        scaling="tf",
        scales_itself=True,
        blocks=tuple(f"expanded_conv_{number}_expand" for number in range(1, 15)),
        fine_tune_from_block=10,
        weights="mobilenet_v3/weights_mobilenet_v3_large_224_{width}_float_no_top_v2.h5",
        md5={
            0.75: "40af19a13ebea4e2ee0c676887f69a2e",
            1.0: "07fb09a5933dd0c8eaafa16978110389",
        },
    ),
    "EfficientNetV2B0": Backbone(
        widths=(1.0,),
        scaling="torch",
        scales_itself=True,
        blocks=tuple(
            f"block{group}{place}_expand_conv"
            for group, places in {2: "ab", 3: "ab", 4: "abc", 5: "abcde", 6: "abcdefgh"}.items()
            for place in places
        ),
        fine_tune_from_block=13,
        weights="efficientnet_v2/efficientnetv2-b0_notop.h5",
        md5={1.0: "893217f2bb855e2983157299931e43ff"},
    ),
}
