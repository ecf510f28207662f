"""Parts of stored images: how they are cut, enlarged and joined."""

import pytest
import torch
import torch.nn.functional as F

from bench.distillation import parts


@pytest.mark.parametrize("factor", [2, 3])
def test_each_part_is_enlarged_to_an_image_and_parts_join_to_the_stored_images(factor: int) -> None:
    images = torch.randn(2, 3, 12, 6, generator=torch.Generator().manual_seed(0)).double()
    height, width = 12 // factor, 6 // factor
    blocks = [
        image[None, :, i * height : (i + 1) * height, j * width : (j + 1) * width]
        for image in images
        for i in range(factor)
        for j in range(factor)
    ]
    assert torch.equal(parts.cut(images, factor), torch.cat(blocks))
    assert torch.equal(parts.joined(parts.cut(images, factor), factor), images)
    enlarged = [
        F.interpolate(block, size=(12, 6), mode="bilinear", align_corners=False) for block in blocks
    ]
    torch.testing.assert_close(parts.decode(images, factor), torch.cat(enlarged))
