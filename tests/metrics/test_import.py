from __future__ import annotations

import subprocess
import sys

HEAVY = ("torchvision", "sklearn", "torchmetrics", "pytorch_image_generation_metrics", "scipy")


def test_metrics_load_no_optional_package():
    # What `import captum.attr` itself loads is not ours to avoid.
    program = (
        "import sys, captum.attr; before = set(sys.modules); import captum_dcf.metrics; "
        f"print([name for name in {HEAVY} if name in set(sys.modules) - before])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
