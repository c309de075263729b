"""What dtrain can do, on real data."""
