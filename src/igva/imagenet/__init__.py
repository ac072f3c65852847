"""The classes of ImageNet, as words."""
