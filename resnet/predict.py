# The same file in the folder of every classifier.
"""Classify photos by a network that was trained here: the five most likely classes, with their probabilities.

    python predict.py RUN IMAGE...    # RUN is the folder of a finished run, such as runs/resnet50_photos

Of each photo the largest square in the middle is resized to what the network takes.
"""

import argparse

import run

import data
import report

N_CLASSES = 5  # that are printed
BATCH_SIZE = 32  # photos in memory at a time


@run.errors_as_sentences
def main():
    """Print what a network makes of image files."""
    run.show_all_letters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="an image file, of any size")
    args = parser.parse_args()
    results = report.results_of(args.run)
    data.check_photos(args.images)  # before the network is loaded
    model = run.load_model(args.run)
    if "task" in results or model.output_shape != (None, len(results["classes"])):
        raise data.DataError(f"{args.run} holds a {results['model']}, which does not classify single images")
    photos = data.Photos(args.images, model.input_shape[1])
    for first in range(0, len(photos), BATCH_SIZE):
        chosen = slice(first, first + BATCH_SIZE)
        for path, probabilities in zip(args.images[chosen], model.predict_on_batch(photos[chosen]), strict=True):
            print(path)
            for i in probabilities.argsort()[::-1][:N_CLASSES]:
                print(f"{probabilities[i]:8.2%}  {results['classes'][i]}")


if __name__ == "__main__":
    main()
