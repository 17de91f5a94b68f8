"""Reading preference data, checking it, splitting it and writing it in one canonical form."""
