"""What build_drawing_bank.py is made of."""
