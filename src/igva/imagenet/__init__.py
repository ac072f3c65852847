"""What is known of ImageNet's 1,000 classes."""
