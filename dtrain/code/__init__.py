"""User code that travels: chosen by rules, packed by content, kept by digest, unpacked where it runs. None of it is imported here."""
