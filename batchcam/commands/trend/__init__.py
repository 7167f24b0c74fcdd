"""`batchcam trend`: what moves over many nights, and alarms for what moves by more than chance."""
