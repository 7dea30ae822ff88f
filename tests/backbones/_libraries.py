"""Small networks of real libraries with random weights, in folders as their libraries save them."""

import numpy as np
import torch
from PIL import Image

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "word", "a", "bb", "ccc", "dddd"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION = {**SMALL, "image_size": 32, "patch_size": 8}


def save_tokenizer(folder, *, padding=True, marks=True, **kwargs):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    if marks:
        words.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    if padding:
        kwargs["pad_token"] = "[PAD]"
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[SEP]", **kwargs).save_pretrained(
        folder
    )


def save_model(folder, class_name, config, **tokenizer):
    """A model of transformers with random weights; text models with a tokeniser of nine words."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, class_name)(config).eval()
    model.save_pretrained(folder)
    if "input_ids" in (model.main_input_name, *model.dummy_inputs):
        save_tokenizer(folder, **tokenizer)
    return model


IMAGES = torch.randint(0, 256, (3, 3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


TEXTS = ["a bb ccc", "dddd"]


def assert_tensors_are_cut_like_pictures(backbone):
    """A wide picture of colours that run across and down, as a tensor and through the library's transform."""
    down = Image.linear_gradient("L").resize((200, 120))
    across = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90).resize((200, 120))
    picture = Image.merge("RGB", [down, across, across])
    prepared = backbone.preprocess(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])
    pixels = prepared["pixel_values"] if isinstance(prepared, dict) else prepared
    torch.testing.assert_close(pixels[0], backbone.transform(picture), rtol=0, atol=0.1)
