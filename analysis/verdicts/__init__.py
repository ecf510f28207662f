"""The paper's claims, and what finished runs say of each."""
