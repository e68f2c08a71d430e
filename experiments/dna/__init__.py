"""Bits per base of a bacterial chromosome, and telling genes from what lies between."""
