"""A workflow as its file tells it: steps, what each needs, makes and is held to."""
