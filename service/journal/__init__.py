"""What a service promises is written down first: records, files of them, and the folder that holds all."""
