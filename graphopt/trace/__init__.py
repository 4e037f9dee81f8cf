"""The way in: functions to graphs."""
