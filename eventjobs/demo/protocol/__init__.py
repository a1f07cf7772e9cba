"""Reviews the text of a clinical protocol by rules on its words."""
