"""From one kind of records to another, and into the files of published code."""
