"""Fine-tunes a pretrained image model on classes of one's own: `python train.py ImageClassifier data=photos/`."""

import torch
from beautilog import logger

from config import ConfigParser
from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from data.loaders import EpochLoader
from evaluation.classification_metrics import balanced_accuracy, macro_f1
from model.image_classifier import ImageClassifier, classification_loss, kept_share
from storage.errors import ResumeError
from storage.files import write_arrays
from train.base_trainer import BaseTrainer
from train.images.class_counts import ClassCounts
from train.images.classified_images import ClassifiedImages
from train.images.classifier_export import export_classifier
from train.images.image_review import review_errors
from train.images.tuned_network import optimizer_of, tuned_network
from train.machine import peak_memory
from train.schedulers import warmup_cosine

_TOP = 5  # classes among which the right one may be
_TOLD = ("accuracy", "balanced_accuracy", "macro_f1")  # by the model card
Batch = dict[str, torch.Tensor]


class ImageClassifierTrainer(BaseTrainer):
    """Fine-tunes a pretrained image model: all of it, its head, or low-rank changes of its layers."""

    config: ImageClassifierTrainerConfig
    model: ImageClassifier
    train_loader: EpochLoader
    val_loader: EpochLoader

    def __init__(self) -> None:
        config = self.config = ConfigParser.get(ImageClassifierTrainerConfig)
        self.images = ClassifiedImages(config)
        self.tuned = tuned_network(config, len(self.images.class_names), len(self.images.split.train), self.device)
        self.model, spec = self.tuned.classifier, self.tuned.input
        self.train_loader = self.images.train_loader(spec, self.device)
        self.val_loader = self.images.val_loader(spec, self.device)
        self.test_loader = self.images.test_loader(spec, self.device)
        self.predict_loader = self.images.predict_loader(spec, self.device)
        self.optimizer = optimizer_of(config, self.tuned)
        steps = -(-len(self.train_loader) // config.accumulation_steps) * config.epochs
        self.scheduler = warmup_cosine(self.optimizer, min(round(config.warmup_share * steps), steps - 1), steps)
        self.init_progress_bar(total=len(self.train_loader) * config.epochs, desc="Fine-tuning")
        weights = self.images.class_weights()
        self.class_weights = None if weights is None else weights.to(self.device)
        self.counts = ClassCounts(len(self.images.class_names), self.device)
        super().__init__()
        for line in [*self.images.lines(), *self.tuned.lines()]:
            logger.info(line)
        for line in self.images.left_out_of_prediction:
            logger.warning(line)

    def _forward_batch(self, batch: Batch) -> torch.Tensor:
        """Return the mean cross-entropy of a batch; class weights, smoothing and mixing are of training alone."""
        images, labels = batch["image"].to(self.device), batch["label"].to(self.device)
        if not self.model.training:
            return self._measured_loss(images, labels)
        keep, box, share = None, None, None
        if "keep" in batch:
            keep, box = batch["keep"].to(self.device), batch["box"].to(self.device)
            share = kept_share(keep, box, self.tuned.input.size)
        logits = self.model(images, keep, box)
        if share is None:  # of mixed images nobody can say what is right
            self._collect_batch_metrics({"accuracy": (logits.argmax(1) == labels).float()})
        loss, weight = classification_loss(logits, labels, self.class_weights, self.config.label_smoothing, share)
        if self.class_weights is not None:
            self._set_loss_count(weight)
        return loss

    def _measured_loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.model(images).float()
        predicted = logits.argmax(1)
        metrics = {"accuracy": (predicted == labels).float()}
        if logits.shape[1] > _TOP:
            metrics["top5_accuracy"] = (logits.topk(_TOP, 1).indices == labels[:, None]).any(1).float()
        self._collect_batch_metrics(metrics)
        if self.run_context.batch_samples:  # of several processes one may have none of this batch
            self.counts.add(labels, predicted)
        return classification_loss(logits, labels)[0]

    def validate(self) -> float:
        """Return the validation loss; what no mean over images gives enters the history too."""
        self.counts.clear()
        val_loss = super().validate()
        matrix = self.counts.matrix(self.run_context.process_group.all_reduce_sum(self.counts.flat))
        self.record.note({"val_balanced_accuracy": balanced_accuracy(matrix), "val_macro_f1": macro_f1(matrix)})
        return val_loss

    def predict_batch(self, batch: Batch) -> dict[str, object]:
        """Return of each image its name, its class where that is known, the likeliest one, and all probabilities."""
        names, known = self.images.class_names, "label" in batch
        keys = self.images.dataset.keys if known else self.images.keys_to_predict
        probabilities = self.model(batch["image"].to(self.device)).float().softmax(1)
        confidence, predicted = probabilities.max(1)
        columns: dict[str, object] = {"image": [keys[index] for index in batch["index"].tolist()]}
        if known:
            columns["label"] = [names[label] for label in batch["label"].tolist()]
        columns |= {"class": [names[number] for number in predicted.tolist()], "confidence": confidence}
        return columns | {f"probability_{name}": probabilities[:, number] for number, name in enumerate(names)}

    def get_extra_state(self) -> dict[str, object]:
        """Return which classes the weights belong to."""
        return {"classes": list(self.images.class_names)}

    def set_extra_state(self, state: dict[str, object]) -> None:
        """Refuse other classes than the run's.

        Raises:
            ResumeError: they are others.
        """
        if state["classes"] != list(self.images.class_names):
            raise ResumeError(
                f"{self.config.data} has the classes {', '.join(self.images.class_names)} now; the run began with "
                f"{state['classes']}. Put the images back, or start another run."
            )

    def after_training(self) -> None:
        """Write the model with what is needed to use it, and what the report shows of its errors."""
        split = self.images.split
        self.results |= {"classes": len(self.images.class_names), "train_images": len(split.train)}
        self.results |= {"val_images": len(split.val), "test_images": len(split.test)}
        with torch.no_grad(), self.run_context.precision.autocast():
            review = review_errors(
                self.model, self.val_loader, self.images.dataset, self.device, self.config.worst_images
            )
        write_arrays(self.get_run_file_path("image_review.npz"), review.arrays())
        self.results |= {"accuracy": review.accuracy, "balanced_accuracy": balanced_accuracy(review.counts)}
        self.results |= {"macro_f1": macro_f1(review.counts), "peak_memory_bytes": peak_memory(self.device)}
        facts = {"run": self.run_folder.id} | {name: str(self.results[name]) for name in ("classes", "train_images")}
        facts |= {f"validation {name.replace('_', ' ')}": f"{self.results[name]:.4g}" for name in _TOLD}
        export_classifier(self.get_run_file_path("model"), self.tuned, self.images.class_names, self.config, facts)
