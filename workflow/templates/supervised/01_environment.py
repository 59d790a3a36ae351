"""Does the service answer, and does it have the model?"""

import json
import sys

import tinker

from tinker_service import lost_connections, service, write_text

model = sys.argv[1]
with lost_connections(), service(model) as client:
    names = [one.model_name for one in client.get_server_capabilities().supported_models]
    if model not in names:
        raise SystemExit(f"the service has no model {model}; it has {', '.join(names)}")
    write_text("results/environment.json", json.dumps({"answers": True, "model": model, "tinker": tinker.__version__}))
    print(f"the service answers and has {model}")
