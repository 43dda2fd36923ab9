"""What tests of replication software need: real servers, and doubles of them."""
