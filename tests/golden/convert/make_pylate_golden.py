"""Make pylate_<kind>/, small index folders as PyLate 1.6.0 writes them.

Run: pip install pylate==1.6.0 voyager==2.1.0 scann==1.4.2 faiss-cpu, then
python make_pylate_golden.py

Every folder holds the same documents, of which "doc-2" was removed again (but ScaNN
cannot remove).  pylate_expected.npz holds the vectors given.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from pylate import indexes
from pylate.indexes.stanford_plaid import StanfordPLAID

HERE = Path(__file__).parent
DIM = 16
IDS = [f"doc-{i}" for i in range(40)]
REMOVED = "doc-2"


def documents() -> list[np.ndarray]:
    """Unit vectors around a few centres, 1 to 14 a document."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(8, DIM))
    made = []
    for _ in IDS:
        length = int(rng.integers(1, 15))
        rows = centres[rng.integers(0, 8, length)] + 0.5 * rng.normal(size=(length, DIM))
        made.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    return made


def keep(built: Path, kind: str, drop: tuple[str, ...] = ()) -> None:
    """Copy an index folder without files that no reader needs."""
    target = HERE / f"pylate_{kind}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(built, target, ignore=shutil.ignore_patterns("plaid.lock", "ivf*", *drop))


def main() -> None:
    torch.manual_seed(0)
    root = Path(tempfile.mkdtemp())
    arrays = documents()
    np.savez_compressed(
        HERE / "pylate_expected.npz",
        tokens=np.concatenate(arrays),
        lengths=[len(array) for array in arrays],
        ids=IDS,
        removed=REMOVED,
    )

    voyager = indexes.Voyager(
        str(root), "voyager", override=True, embedding_size=DIM, M=4, ef_construction=20
    )
    voyager.add_documents(documents_ids=IDS, documents_embeddings=arrays)
    voyager.remove_documents([REMOVED])
    keep(root / "voyager", "voyager")

    fast = indexes.PLAID(str(root), "fast", override=True, nbits=4, device="cpu", show_progress=False)
    fast.add_documents(documents_ids=IDS, documents_embeddings=arrays)
    fast.remove_documents([REMOVED])
    keep(root / "fast", "fast_plaid", ("*manifest.json", "merged_*", "cluster_threshold*"))

    stanford = StanfordPLAID(str(root), "stanford", override=True, embedding_size=DIM, nbits=2)
    stanford.add_documents(documents_ids=IDS, documents_embeddings=arrays)
    stanford.remove_documents([REMOVED])
    keep(root / "stanford", "stanford_plaid")
    for name in ("metadata.json", "plan.json"):  # they contain the folder and time of this run
        file = HERE / "pylate_stanford_plaid" / name
        content = json.loads(file.read_text())
        content["config"].update(root="indexes", index_root="indexes", name="golden")
        file.write_text(json.dumps(content, indent=1) + "\n")

    scann = indexes.ScaNN(
        index_name="scann", embedding_size=DIM, index_folder=str(root), override=True, num_leaves=8
    )
    scann.add_documents(documents_ids=IDS, documents_embeddings=arrays)
    scann.save()
    keep(root / "scann", "scann", ("*.pb", "*.pbtxt", "*hashed*", "*tokenization*", "dataset*", "*.npy.tmp"))


if __name__ == "__main__":
    main()
