"""Language models behind an address that speaks OpenAI's protocol: one call, and many that are kept one by one."""
