"""What a few runs can tell: intervals over nested samples, and the smallest effect that n seeds can see."""
