"""How good a distilled set is: one of ours, or one made elsewhere."""
