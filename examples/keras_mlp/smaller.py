"""From `.keras` to a smaller, certified `.keras`: `python smaller.py`, after `python make.py`."""

import tersor

if __name__ == "__main__":
    model = tersor.load_model("mlp_adam.keras", arguments={"custom_objects": "net.py:MLP"})
    result = tersor.optimize(
        model, "npz:data.npz", max_drop=0.02, goal="size", methods=("prune", "distill"), budget="2m"
    )
    print(result.sentence)
    tersor.export_keras(result.model, "smaller.keras")
