"""List the changes to BEHRT's notebooks with which they train on converted records."""

from pathlib import Path

from medtok_jax.convert.ehr_models import notebook
from medtok_jax.convert.ehr_models.notebook import AFTER, END, NEW, Change

PACKAGES = "torch pytorch_pretrained_bert pandas pyarrow scikit-learn h5py"
_DEVICE = "'cuda:0' if torch.cuda.is_available() else 'cpu'"


def masked_tokens(output: Path, max_len: int, width: int) -> list[Change]:
    """Return the changes to `task/MLM.ipynb` for the files in `output`, in the order of cells."""
    matrix = repr(str(output / "word_embeddings.npy"))
    files = {"vocab": output / "vocabulary", "data": output / "mlm.parquet", "model_path": output / "models"}
    named = "\n".join(f"file_config[{name!r}] = {str(path)!r}" for name, path in files.items())
    return [
        Change(
            3,
            AFTER,
            f"{named}\nfile_config['model_name'] = 'mlm.pt'\nfile_config['file_name'] = 'log.txt'",
            "}",
            "it creates the folder of the model next",
        ),
        Change(
            4,
            END,
            f"global_params['max_seq_len'] = train_params['max_len_seq'] = {max_len}\n"
            "global_params['min_visit'] = 1\n"
            f"train_params['device'] = {_DEVICE}",
            why="5 visits, its own number, leave out most patients of MIMIC",
        ),
        Change(7, END, "data_len = len(trainload)", why="its last cell reads data_len, which it never sets"),
        Change(8, END, f"model_config['hidden_size'] = {width}"),
        Change(
            9,
            AFTER,
            f"model.bert.embeddings.word_embeddings.weight.data.copy_(\n    torch.from_numpy(np.load({matrix})))",
            "model = BertForMaskedLM(conf)",
        ),
    ]


def next_visit(output: Path, max_len: int, width: int) -> list[Change]:
    """Return the changes to `task/NextXVisit.ipynb` for the files in `output`, in the order of cells."""
    files = {"vocab": "vocabulary", "train": "train.parquet", "test": "tuning.parquet"}
    named = "\n".join(f"file_config[{name!r}] = {str(output / path)!r}" for name, path in files.items())
    test = repr(str(output / "test.parquet"))
    return [
        Change(
            2,
            END,
            f"{named}\nglobal_params['max_len_seq'] = {max_len}\n"
            f"global_params['device'] = {_DEVICE}\n"
            f"global_params['output_dir'] = {str(output / 'models')!r}\n"
            "global_params['best_name'] = 'next_visit.pt'\n"
            f"pretrain_model_path = {str(output / 'models' / 'mlm.pt')!r}",
            why="it keeps the epoch that is best on 'test', so that file must not be the test patients",
        ),
        Change(
            4,
            END,
            f"labelVocab = load_obj({str(output / 'label_vocabulary')!r})['token2idx']",
            why="labels are codes, not their tokens",
        ),
        Change(5, END, f"model_config['hidden_size'] = {width}"),
        Change(
            16,
            NEW,
            f"test = pd.read_parquet({test})\n"
            "Dset = NextVisit(token2idx=BertVocab['token2idx'], label2idx=labelVocab, age2idx=ageVocab,\n"
            "                 dataframe=test, max_len=global_params['max_len_seq'])\n"
            "testload = DataLoader(dataset=Dset, batch_size=global_params['batch_size'])\n"
            "model.load_state_dict(torch.load(output_model_file))\n"
            "aps, roc, _ = evaluation()\n"
            "print('test patients: average precision', aps, 'AUROC', roc)",
            why="both are means over visits",
        ),
    ]


def steps(output: Path, max_len: int, width: int) -> str:
    """Return the changes as steps for a reader."""
    return f"""Next (git clone https://github.com/deepmedicine/BEHRT; pip install {PACKAGES}),
in task/MLM.ipynb:
{notebook.steps(masked_tokens(output, max_len, width))}
in task/NextXVisit.ipynb:
{notebook.steps(next_visit(output, max_len, width))}"""
