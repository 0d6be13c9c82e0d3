"""The methods: for each, its communication plan, its memory and its update rule."""
