"""What a certificate is worth: exact size and power by enumeration, and whole searches by simulation."""
