"""Where the data of the benchmarks are from and on what terms, as commonly stated by their publishers.

Written down from general knowledge, checked against no licence text; where a line says no or unclear licence, assume
no right to redistribute. Data are for research evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, tuple[str, str]] = {
    "agnews": ("AG News (Zhang et al. 2015)", "research, non-commercial; texts belong to their publishers"),
    "amazon": ("Amazon Review Full (Zhang et al. 2015)", "no clear licence; released for research"),
    "yelp": ("Yelp Review Full (Zhang et al. 2015)", "Yelp's terms: academic, non-commercial, no redistribution"),
    "dbpedia": ("DBpedia (Zhang et al. 2015)", "CC BY-SA 3.0 and GNU FDL"),
    "yahoo": ("Yahoo! Answers (Zhang et al. 2015)", "Webscope L6: non-commercial research only"),
    "imdb": ("IMDB (Maas et al. 2011)", "no formal licence; free for research"),
    "mnli": ("MultiNLI (Williams et al. 2018), GLUE", "mostly the OANC's terms; parts CC BY 3.0, CC BY-SA 3.0"),
    "qqp": ("Quora Question Pairs, GLUE", "Quora's terms: non-commercial research"),
    "sst2": ("SST-2 (Socher et al. 2013), GLUE", "no formal licence; research"),
    "rte": ("RTE 1-3 and 5, GLUE", "no formal licence; research"),
    "boolqa": ("BoolQ (Clark et al. 2019), SuperGLUE", "CC BY-SA 3.0"),
    "cb": ("CommitmentBank (de Marneffe et al. 2019), SuperGLUE", "no formal licence; research"),
    "copa": ("COPA (Roemmele et al. 2011), SuperGLUE", "BSD 2-clause"),
    "multirc": ("MultiRC (Khashabi et al. 2018), SuperGLUE", "University of Illinois research licence"),
    "wic": ("WiC (Pilehvar and Camacho-Collados 2019), SuperGLUE", "CC BY-NC 4.0"),
    "C-STANCE": ("C-STANCE (Zhao et al. 2023)", "no clear licence; research"),
    "FOMC": ("FOMC (Shah et al. 2023)", "CC BY-NC 4.0"),
    "MeetingBank": ("MeetingBank (Hu et al. 2023)", "CC BY-NC-ND 4.0"),
    "Py150": ("Py150 (Raychev et al. 2016), CodeXGLUE", "research; each file keeps its own licence"),
    "ScienceQA": ("ScienceQA (Lu et al. 2022)", "CC BY-NC-SA 4.0"),
    "NumGLUE-cm": ("NumGLUE task 1 (Mishra et al. 2022)", "not established; parts keep their sources' terms"),
    "NumGLUE-ds": ("NumGLUE task 2 (Mishra et al. 2022)", "not established; parts keep their sources' terms"),
    "20Minuten": ("20Minuten (Rios et al. 2021)", "research; articles belong to the newspaper"),
    "superni": ("Super-NaturalInstructions (Wang et al. 2022)", "Apache 2.0; parts keep their own terms"),
    "builtin": ("made on the spot by everlora", "Apache 2.0"),
    "vision-digits": ("optical digits (Alpaydin and Kaynak 1998), from scikit-learn", "CC BY 4.0"),
    "vision-mnist": ("MNIST (LeCun et al. 1998)", "CC BY-SA 3.0"),
    "vision-cifar100": ("CIFAR-100 (Krizhevsky 2009)", "no formal licence; research"),
    "vision-imagenet-r": ("ImageNet-R (Hendrycks et al. 2021)", "MIT for the collection; pictures by others"),
    "vision-imagenet-r-5": ("ImageNet-R (Hendrycks et al. 2021)", "MIT for the collection; pictures by others"),
    "vision-imagenet-r-20": ("ImageNet-R (Hendrycks et al. 2021)", "MIT for the collection; pictures by others"),
    "vision-domainnet": ("DomainNet (Peng et al. 2019)", "fair-use notice of its authors; research"),
}


def licences(benchmark: str, task: str) -> tuple[str, str]:
    """Source and terms of a task's data; of the benchmark's where the task has none of its own."""
    return TERMS.get(task) or TERMS.get(benchmark, ("", ""))
