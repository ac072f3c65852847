"""The 1,000 classes of ImageNet."""
