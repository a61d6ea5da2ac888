"""What stays in a stream's context when its budget is used up."""
