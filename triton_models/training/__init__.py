"""From labelled images to two trained, calibrated and fused networks. The service never imports this package."""
