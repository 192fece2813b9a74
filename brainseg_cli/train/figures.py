"""What a run shows of itself: its best, its median and its worst patient, outlined."""

from pathlib import Path

from brainseg_cli.figures.overlay import draw_overlay
from brainseg_cli.figures.sheet import draw_sheet
from brainseg_cli.io.images import write_image
from brainseg_cli.models.bundle import load_bundle
from brainseg_cli.models.devices import choose_device
from brainseg_cli.models.network import TorchNetwork
from brainseg_cli.models.segmenter import Segmenter, apply_threshold
from brainseg_cli.training.run_folder import RunFolder
from brainseg_cli.types import Progress, no_progress

SHEET_SLICES = 3


def draw_run_figures(
    path: Path, *, dataset_path: Path | None = None, device_name: str = "auto", progress: Progress = no_progress
) -> list[Path]:
    """Overlays of the best, the median and the worst patient of the run's report, each on its slices with the
    most reference tumour: figures/overlay-best.png and so on, and figures/overlays.png with one of each.

    Patients without tumour have no dice and are left out; no such patient, no figure. InputError where the
    run has no report yet.
    """
    run = RunFolder(path)
    info = run.read_info()
    patients = run.read_report("patients.csv").dropna(subset="dice").sort_values("dice", kind="stable")
    patients = patients[patients["reference_px"] > 0]
    if patients.empty:
        return []
    measured = run.read_report("slices.csv").set_index("image")
    dataset = run.load_dataset(dataset_path, verify=False)
    model, bundle = load_bundle(path)
    network = TorchNetwork(model, bundle.preprocess, len(bundle.channel_names), choose_device(device_name))
    segmenter = Segmenter(network)
    places = {"best": -1, "median": (len(patients) - 1) // 2, "worst": 0}
    written, firsts = [], []
    for done, (name, place) in enumerate(places.items(), 1):
        patient = patients.iloc[place]
        of_patient = dataset.slices[dataset.slices["patient_id"] == patient["patient_id"]]
        of_patient = of_patient[of_patient["image"].isin(measured.index)]
        chosen = of_patient.sort_values("tumour_px", ascending=False, kind="stable").head(SHEET_SLICES)
        figures = []
        for row in sorted(chosen.index):
            image = dataset.image(row)
            mask = apply_threshold(segmenter.predict_probs([image])[0], bundle.threshold)
            score = measured.loc[chosen.loc[row, "image"], "dice"]
            title = (
                f"{name}: {patient['patient_id']} dice {patient['dice']:.3f}, "
                f"slice {chosen.loc[row, 'slice_index']} dice {score:.3f}" + (" LEAKY" if info.leaky else "")
            )
            figures.append(draw_overlay(image, mask, dataset.mask(row), title=title))
        target = run.figures / f"overlay-{name}.png"
        write_image(target, draw_sheet(figures, columns=len(figures)))
        written.append(target)
        firsts.append(figures[sorted(chosen.index).index(chosen.index[0])])
        progress(done, len(places), "drawing overlays")
    write_image(run.figures / "overlays.png", draw_sheet(firsts, columns=len(firsts)))
    return [*written, run.figures / "overlays.png", run.figures / "curves.png"]
