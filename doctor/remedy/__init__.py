"""From a finding to what somebody does about it: candidates in order, commands to paste, pins in the right file."""
