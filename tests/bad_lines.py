"""Tables of command lines that cannot be done, each with what is said of it."""

from __future__ import annotations

LENS = (
    "lens --checkpoints {checkpoints} --data {data} --out {out} --model tiny:perceptron "
    "--per-class 4"
)

#: Options that take numbers, for each the values that are none of it.
WHOLE = ("''", "x", "1.5", "nan", "1e3", "-1", "99999999999999999999999", "0x10", "1,2")

REAL = ("''", "x", "nan", "-0.5", "1,5")

NUMBERS = {
    "explain --top-k": WHOLE,
    "explain --seed": WHOLE,
    "explain --temperature": (*REAL, "-inf", "fitted"),
    "explain --pool-temperature": (*REAL, "fit"),
    "ascend --temperature": (*REAL, "fit"),
    "ascend --pool-temperature": REAL,
    "ascend --steps": (*WHOLE, "0"),
    "ascend --step-size": (*REAL, "0", "inf"),
    "ascend --radius": (*REAL, "0", "inf"),
    "ascend --seed": (*WHOLE, "18446744073709551616"),
    "lens --size": (*WHOLE, "0", "100000"),
    "lens --per-class": (*WHOLE, "0"),
    "lens --seed": (*WHOLE, "18446744073709551616"),
    "app --port": (*WHOLE, "0", "65536", "http"),
}

#: A command line, and what its one line says. Where there is no --model, tiny:network is meant.
LINES = r"""
                                        -> the following arguments are required: COMMAND
explode                                 -> invalid choice: 'explode'
Explain noise.png                       -> invalid choice: 'Explain'
--verbose                               -> the following arguments are required: COMMAND
explain --frobnicate                    -> unrecognized arguments: --frobnicate
explain -x                              -> unrecognized arguments: -x
explain noise.png --model               -> --model: expected one argument
explain noise.png --weights             -> --weights: expected one argument
explain noise.png --target              -> --target: expected one argument
explain noise.png --out                 -> --out: expected one argument
explain noise.png --show                -> --show: expected one argument
explain noise.png --show pretty         -> --show: invalid choice: 'pretty'
explain noise.png --show ''             -> --show: invalid choice: ''
explain noise.png --no-scores=1         -> --no-scores: ignored explicit argument '1'
ascend noise.png --scale house          -> --scale: invalid choice: 'house'
ascend noise.png --show all             -> --show: invalid choice: 'all'
ascend noise.png --target 1,9           -> class 9 is not in the range 0 to 4
ascend noise.png --npz a.npz            -> unrecognized arguments: --npz
lens noise.png                          -> unrecognized arguments: noise.png
lens --weights none                     -> --weights: invalid choice: 'none'
app noise.png                           -> unrecognized arguments: noise.png

explain ''                              -> PHOTO: must not be empty
explain ' '                             -> PHOTO: must not be empty
explain noise.png --out ''              -> --out: must not be empty
explain noise.png --npz ''              -> --npz: must not be empty
explain noise.png --model ''            -> --model: must not be empty
explain noise.png --weights ''          -> --weights: must not be empty
explain noise.png --device ''           -> --device: must not be empty
ascend ''                               -> PHOTO: must not be empty
ascend noise.png --gif ''               -> --gif: must not be empty
ascend noise.png --out ''               -> --out: must not be empty
lens --out ''                           -> --out: must not be empty
lens --data '' --checkpoints run        -> --data: must not be empty
lens --checkpoints '' --data good.npz   -> --checkpoints: must not be empty
lens --model '' --checkpoints run       -> --model: must not be empty
app --host ''                           -> --host: must not be empty
app --model ''                          -> --model: must not be empty

explain missing.png                     -> missing.png: no such file
explain no/such/folder/a.png            -> no/such/folder/a.png: no such file
explain empty.jpg                       -> empty.jpg: is empty
explain broken.jpg                      -> broken.jpg: is
explain truncated.png                   -> truncated.png: is broken or truncated
explain text.txt                        -> text.txt: is not a picture
explain page.jpg                        -> page.jpg: is not a picture
explain vector.svg                      -> vector.svg: is not a picture
explain script.eps                      -> script.eps: is not a picture
explain bomb.png                        -> bomb.png: has more than [\d,]+ pixels
explain phone.heic                      -> phone.heic: is (HEIC|broken)
explain folder                          -> folder: is a folder
explain .                               -> is a folder
explain pipe.png                        -> pipe.png: is not a regular file
explain /dev/null                       -> /dev/null: is not a regular file
explain loop.png                        -> loop.png'?: cannot be opened
explain dangling.png                    -> dangling.png: no such file
explain '*.gif'                         -> \*\.gif: no file matches this pattern
explain 'folder/*'                      -> folder/\*: no file matches this pattern
explain 'no[0-9].png'                   -> no\[0-9\].png: no file matches this pattern
explain 'empty.*'                       -> empty.jpg: is empty
explain grace_hoper                     -> grace_hoper: no such file
explain noise.png/a.png                 -> noise.png/a.png'?: cannot be opened
ascend missing.png                      -> missing.png: no such file
ascend empty.jpg                        -> empty.jpg: is empty
ascend 'z*.jpg'                         -> z\*.jpg: no file matches this pattern
ascend truncated.png                    -> truncated.png: is broken or truncated
ascend folder                           -> folder: is a folder

explain noise.png --out a.docx          -> a.docx: the name must end in .png or .pdf or .svg
explain noise.png --out a               -> a: the name must end in
explain noise.png --out .png            -> .png: the name must end in
explain noise.png --out folder          -> folder: the name must end in
explain noise.png --out folder.png      -> folder.png: is not a regular file
explain noise.png --out noise.png       -> noise.png: is one of the photographs
explain 'nois?.png' --out noise.png     -> noise.png: is one of the photographs
explain noise.png --out ./noise.png     -> noise.png: is one of the photographs
explain noise.png --out no/a.png        -> no/a.png: there is no folder
explain noise.png --out noise.png/a.png -> noise.png/a.png: there is no folder
explain noise.png --out pipe.png        -> pipe.png: is not a regular file
explain noise.png --out loop.png        -> loop.png
explain noise.png --out dangling.png    -> dangling.png: there is no folder /nowhere/at
explain noise.png --out /proc/a.png     -> /proc/a.png: nothing can be written in /proc
explain noise.png --npz a.npy           -> a.npy: the name must end in .npz
explain noise.png --npz no/a.npz        -> no/a.npz: there is no folder
explain noise.png --npz /proc/a.npz     -> /proc/a.npz: nothing can be written in /proc
ascend noise.png --out a.gif            -> a.gif: the name must end in .png or .pdf or .svg
ascend noise.png --gif a.png            -> a.png: the name must end in .gif
ascend noise.png --out no/a.png         -> no/a.png: there is no folder
ascend noise.png --gif no/a.gif         -> no/a.gif: there is no folder
ascend noise.png --out noise.png        -> noise.png: is one of the photographs
ascend noise.png --gif /proc/a.gif      -> /proc/a.gif: nothing can be written in /proc

explain noise.png --methods ''          -> no method is called ''; choose from pullback
explain noise.png --methods ,           -> no method is called ''
explain noise.png --methods ig,         -> no method is called ''
explain noise.png --methods lime        -> no method is called 'lime'
explain noise.png --methods IG          -> no method is called 'IG'
explain noise.png --methods 'ig saliency' -> no method is called 'ig saliency'
explain noise.png --target goldfsh      -> 'goldfsh' \(did you mean 'goldfish'\?\)
explain noise.png --target ''           -> no class is called ''
explain noise.png --target ,            -> no class is called ''
explain noise.png --target goldfish,    -> no class is called ''
explain noise.png --target cat          -> 'cat' may mean several classes: 2 \(tabby, .*, 4
explain noise.png --target tabby,nothing -> no class is called 'nothing'
explain noise.png --target 5            -> class 5 is not in the range 0 to 4
explain noise.png --target -1           -> class -1 is not in the range 0 to 4
explain noise.png --target=-1           -> class -1 is not in the range 0 to 4
explain noise.png --target 1.0          -> no class is called '1.0'
explain noise.png --target 99999999999999999999999999 -> no class is called '9999999
explain noise.png --target 0 --target x -> no class is called 'x'
explain noise.png --temperature cold    -> a temperature must be a number from 0 to inf, not 'cold'
explain noise.png --top-k 0             -> nothing to explain
explain noise.png --model tiny:unnamed --target -1 -> class -1: .* numbered from 0
explain noise.png --model tiny:unnamed --target cat -> 'cat': these classes have only numbers
ascend noise.png --targets unicorn      -> no class is called 'unicorn'
ascend noise.png --targets ''           -> no class is called ''
ascend noise.png --targets self,        -> no class is called ''
ascend noise.png --targets 0,5          -> class 5 is not in the range 0 to 4
ascend noise.png --targets=-1           -> class -1 is not in the range 0 to 4
ascend noise.png --targets cat          -> 'cat' may mean several classes
ascend noise.png --targets Random       -> no class is called 'Random'

explain noise.png --device abacus       -> device 'abacus' is not available here
explain noise.png --device cuda:99      -> device 'cuda:99' is not available here
explain noise.png --device cpu:x        -> device 'cpu:x' is not available here
explain noise.png --device meta         -> tiny:network fails on noise.png
ascend noise.png --device abacus        -> device 'abacus' is not available here
app --device abacus                     -> device 'abacus' is not available here

explain noise.png --model resnet5       -> no network is called 'resnet5' .*'resnet50'
explain noise.png --model tiny          -> no network is called 'tiny'
explain noise.png --model Embedded      -> no network is called 'Embedded' .*'embedded'
explain noise.png --model absent:make   -> 'absent:make': there is no module 'absent' in this fol
explain noise.png --model absent.a:make -> 'absent.a:make': there is no module 'absent' in this
explain noise.png --model tiny.py:network -> without .py: tiny:network
explain noise.png --model ./tiny.py:f   -> 'tiny:f'|without .py
explain noise.png --model :network      -> ':network': cannot import ''
explain noise.png --model .tiny:network -> '.tiny:network': cannot import '.tiny'
explain noise.png --model tiny:         -> 'tiny:': tiny has no attribute ''
explain noise.png --model tiny:netwrk   -> 'tiny:netwrk': tiny has no attribute .*'network'
explain noise.png --model tiny:a:b      -> 'tiny:a:b': tiny has no attribute 'a:b'
explain noise.png --model tiny:number   -> 'tiny:number' is of type int, not a function
explain noise.png --model tiny:instance -> 'tiny:instance' is of type ReLU, not a function
explain noise.png --model tiny:CLASSES  -> 'tiny:CLASSES' is of type tuple, not a function
explain noise.png --model tiny:returns_none -> returned an object of type NoneType
explain noise.png --model tiny:returns_number -> returned an object of type int
explain noise.png --model tiny:returns_class -> returned an object of type type
explain noise.png --model syntax:make   -> 'syntax:make': cannot import 'syntax': SyntaxError
explain noise.png --model needs_more:f  -> cannot import 'needs_more': .*a_module_that_is_not_there
explain noise.png --model fails:f       -> cannot import 'fails': .*does not want to
explain noise.png --model divides:f     -> cannot import 'divides': ZeroDivisionError
explain noise.png --model leaves:f      -> cannot import 'leaves': SystemExit: 3
explain noise.png --model inner:f       -> cannot import 'inner': AttributeError
explain noise.png --model tiny:raises   -> tiny:raises cannot be created: KeyError: 'weights'
explain noise.png --model tiny:asserts  -> tiny:asserts cannot be created: AssertionError
explain noise.png --model tiny:exits    -> tiny:exits cannot be created: SystemExit: usage
explain noise.png --model tiny:needs    -> tiny:needs cannot be created: needs\(\) missing 1
explain noise.png --model tiny:key      -> tiny:key fails on noise.png: KeyError: 'a key'
explain noise.png --model tiny:gradients -> noise.png: Gradient of tiny:gradients: IndexError: only
explain noise.png --model tiny:pair     -> tiny:pair fails on noise.png: it returns .* type tuple
explain noise.png --model tiny:nothing  -> tiny:nothing fails on noise.png: it returns .* NoneType
explain noise.png --model tiny:dictionary -> tiny:dictionary fails on noise.png: it returns .* dict
explain noise.png --model tiny:flat     -> tiny:flat fails on noise.png: it returns .*shape \(5,\)
explain noise.png --model tiny:deep     -> tiny:deep fails .* it returns .*shape \(1, 5, 1\)
explain noise.png --model tiny:empty    -> tiny:empty fails .* it returns .*shape \(1, 0\)
explain noise.png --model tiny:nan      -> tiny:nan fails on noise.png: 5 of its 5 scores are NaN
explain noise.png --model tiny:infinite -> tiny:infinite fails on noise.png: 5 of its 5 scores
explain noise.png --model tiny:leaves   -> tiny:leaves exits the program: SystemExit: bye
explain noise.png --model tiny:linear --methods pullback -> pullback of tiny:linear: nothing
explain noise.png --model tiny:scripted --methods pullback -> pullback of tiny:scripted: scripted
explain noise.png --model tiny:wrong_size -> tiny:wrong_size fails on noise.png: .*72
explain noise.png --model tiny:wrong_preprocess -> wrong_preprocess fails on noise.png: .*no_such
explain noise.png --model tiny:linear --methods guidedbackprop -> guided backprop needs nn.ReLU
explain noise.png --model tiny:linear --temperature fit -> --temperature fit of tiny:linear: nothing
explain noise.png --model tiny:scripted --temperature fit -> --temperature fit of tiny:scripted
explain noise.png --model tiny:gradients --temperature fit -> --temperature fit of tiny:gradients
ascend noise.png --model tiny:raises    -> tiny:raises cannot be created: KeyError
ascend noise.png --model tiny:key       -> tiny:key fails on noise.png: KeyError
ascend noise.png --model tiny:gradients -> noise.png: tiny:gradients: IndexError
ascend noise.png --model tiny:nan       -> tiny:nan fails on noise.png
ascend noise.png --model tiny:scripted  -> tiny:scripted: scripted or traced
ascend noise.png --model tiny:linear    -> noise.png: tiny:linear: nothing was softened
ascend noise.png --model absent:make    -> there is no module 'absent'
ascend noise.png --model resnet5        -> no network is called 'resnet5'
app --model resnet5                     -> no network is called 'resnet5'
app --model absent:make                 -> there is no module 'absent'
app --model tiny:raises                 -> tiny:raises cannot be created: KeyError
app --model tiny:key                    -> tiny:key cannot be used: KeyError
app --model tiny:pair                   -> tiny:pair cannot be used
app --model tiny:leaves                 -> tiny:leaves exits the program: SystemExit: bye
app --weights zero.pt                   -> --weights needs exactly one --model
app --model tiny:network --model tiny:linear --weights zero.pt -> --weights needs exactly one
app --model tiny:network --weights missing.pt -> weights of 'tiny:network': there is no file
app --host nowhere.invalid              -> cannot listen on nowhere.invalid
app --host 256.256.256.256              -> cannot listen on 256.256.256.256

explain noise.png --weights missing.pt  -> weights of 'tiny:network': there is no file 'missing.pt'
explain noise.png --weights folder      -> weights of 'tiny:network': there is no file 'folder'
explain noise.png --weights random      -> 'tiny:network' makes its own weights
explain noise.png --weights zero.pt     -> weights of 'tiny:network': zero.pt is not a readable
explain noise.png --weights garbage.pt  -> garbage.pt is not a readable state dict
explain noise.png --weights noise.png   -> noise.png is not a readable state dict
explain noise.png --weights text.txt    -> text.txt is not a readable state dict
explain noise.png --weights list.pt     -> list.pt contains no state dict .* of type list
explain noise.png --weights tensor.pt   -> tensor.pt contains no state dict .* of type Tensor
explain noise.png --weights number.pt   -> number.pt contains no state dict .* of type int
explain noise.png --weights no_tensors.pt -> no_tensors.pt contains no state .* only 'epoch', 'loss'
explain noise.png --weights empty_dict.pt -> empty_dict.pt contains no state dict of tensors: it is
explain noise.png --weights empty_state.pt -> empty_state.pt contains no .* it is empty
explain noise.png --weights renamed.pt  -> renamed.pt does not fit: 4 missing .* 4 not in the netwo
explain noise.png --weights fewer.pt    -> fewer.pt does not fit: 1 missing \(4.bias\)
explain noise.png --weights more.pt     -> more.pt does not fit: 1 not in the network \(9.weight\)
explain noise.png --weights reshaped.pt -> 4.bias is \(7,\), but \(5,\) in the network
explain noise.png --weights nan.pt      -> nan.pt has NaN in 4.bias: the training diverged
explain noise.png --weights whole.pt    -> whole.pt contains a Python object, torch.*state_dict\(\)
explain noise.png --weights garbage.safetensors -> garbage.safetensors (is not|needs)
explain noise.png --weights missing.safetensors -> there is no file 'missing.safetensors'
explain noise.png --model resnet18 --weights missing.pt -> weights of 'resnet18': there is no file
explain noise.png --model embedded --weights nan.pt -> nan.pt does not fit|nan.pt has NaN
ascend noise.png --weights missing.pt   -> weights of 'tiny:network': there is no file
ascend noise.png --weights whole.pt     -> whole.pt contains a Python object
ascend noise.png --weights nan.pt       -> nan.pt has NaN in 4.bias

explain noise.png --model tiny:rules --rules magic -> --rules: rules begin with
ascend noise.png --model tiny:rules --rules magic -> --rules: rules begin with
explain noise.png --model tiny:rules --rules gelux=none -> 'gelux' \(did you mean 'gelu'\?\)
ascend noise.png --model tiny:rules --rules gelux=none -> 'gelux' \(did you mean 'gelu'\?\)
explain noise.png --model tiny:rules --rules gelu=open -> no reading 'open'; .* held, none
ascend noise.png --model tiny:rules --rules gelu=open -> no reading 'open'; .* held, none
explain noise.png --temperature '1 spreads' -> --temperature: a temperature must be a number
ascend noise.png --temperature '1 spreads' -> --temperature: a temperature must be a number
app --rules hard                        -> rules begin with excitation or semantic
app --rules semantic,gelo=none          -> 'gelo' \(did you mean 'gelu'\?\)
app --rules semantic,gelu=soft          -> gelu has no reading 'soft'
explain noise.png --temperature 0.3,gleu=1 -> names 'gleu', but the model has no module
ascend noise.png --temperature 0.3,gleu=1 -> names 'gleu', but the model has no module
explain noise.png --pool-temperature 0.3,9=1 -> pool_temperature names '9', but the model
ascend noise.png --pool-temperature 0.3,9=1 -> pool_temperature names '9', but the model

lens --data good.npz                    -> --checkpoints and --data go together
lens --checkpoints run                  -> --checkpoints and --data go together
lens --model tiny:perceptron            -> --model and --size need --checkpoints and --data
lens --size 32                          -> --model and --size need --checkpoints and --data
"""

#: What is wrong with a run, and what is said; all else of the command is right.
RUNS = r"""
checkpoints missing        -> missing: is not a folder of checkpoints
checkpoints noise.png      -> noise.png: is not a folder of checkpoints
checkpoints folder         -> folder: contains 0 checkpoints; at least two are needed
checkpoints run_one        -> run_one: contains 1 checkpoints
checkpoints run_unnumbered -> run_unnumbered: contains 0 checkpoints
checkpoints run_same       -> run_same: contains 1 checkpoints; at least two
checkpoints run_garbage    -> step_1.pt is not a readable state dict
checkpoints run_whole      -> step_1.pt contains a Python object
checkpoints run_nan        -> step_1.pt has NaN in 0.weight: the training diverged
checkpoints run_later_nan  -> step_2.pt has NaN in 0.weight
checkpoints run_other      -> step_1.pt does not fit: 4 missing
checkpoints run_reshaped   -> step_2.pt does not fit: 0.bias is \(9,\), but \(6,\) in the network
data missing               -> missing: is neither a folder of pictures nor an .npz file
data missing.npz           -> missing.npz: there is no such file
data noise.png             -> noise.png: is neither a folder of pictures nor an .npz file
data folder                -> folder: contains 0 folders of pictures
data pictures_empty        -> pictures_empty/a: contains no pictures
data pictures_one          -> pictures_one: contains 1 folders of pictures
data pictures_bad          -> 1.png: is not a picture
data folder.png            -> folder.png: contains 0 folders of pictures
data zero.npz              -> zero.npz: cannot be read as an .npz file
data garbage.npz           -> garbage.npz: cannot be read as an .npz file
data cut.npz               -> cut.npz: cannot be read as an .npz file
data array.npz             -> array.npz: cannot be read as an .npz file
data none.npz              -> none.npz: has no array 'inputs' \(its arrays: none\)
data no_labels.npz         -> no_labels.npz: has no array 'labels' \(its arrays: inputs\)
data no_inputs.npz         -> no_inputs.npz: has no array 'inputs' \(its arrays: labels\)
data fewer_labels.npz      -> has inputs of shape \(8, 4\) and labels of shape \(5,\)
data wide_labels.npz       -> has inputs of shape \(8, 4\) and labels of shape \(8, 2\)
data no_examples.npz       -> has inputs of shape \(0, 4\)
data flat_inputs.npz       -> has inputs of shape \(8,\)
data one_number.npz        -> has inputs of shape \(\)
data empty_inputs.npz      -> has inputs of shape \(8, 0\)
data nan_inputs.npz        -> nan_inputs.npz: inputs are NaN or infinite in places
data nan_labels.npz        -> nan_labels.npz: labels are NaN or infinite in places
data infinite_labels.npz   -> infinite_labels.npz: labels are NaN or infinite
data half_labels.npz       -> half_labels.npz: labels must be whole numbers of 0 or more
data negative_labels.npz   -> negative_labels.npz: labels must be whole numbers of 0 or more
data huge_labels.npz       -> huge_labels.npz: labels must be whole numbers of 0 or more
data large_labels.npz      -> labels up to 7, but the network has logits for 2 classes only
data text_labels.npz       -> text_labels.npz: 'inputs' and 'labels' must be numbers
data text_inputs.npz       -> text_inputs.npz: 'inputs' and 'labels' must be numbers
data complex_inputs.npz    -> complex_inputs.npz: 'inputs' and 'labels' must be numbers
data object_inputs.npz     -> object_inputs.npz: cannot be read as an .npz file
data one_class.npz         -> one_class.npz: has only one class; at least two are needed
data other_width.npz       -> Sequential fails at step 1: .*shapes cannot be multiplied
data deep_inputs.npz       -> Sequential fails at step 1: .*shapes cannot be multiplied
model absent:make          -> there is no module 'absent' in this folder
model tiny:raises          -> tiny:raises cannot be created: KeyError
model resnet5              -> no network is called 'resnet5'
model tiny:linear          -> step_1.pt does not fit
model tiny:perceptron_pair -> does not fit|the network returns tuple
out noise.png              -> noise.png: cannot create this folder \(it is a file\)
out noise.png/a            -> noise.png/a: cannot create this folder
out /proc/a                -> /proc/a: cannot create this folder
out record_text            -> lens.json is damaged: remove record_text/record, and record again
out record_list            -> lens.json is damaged
out record_bytes           -> lens.json is damaged
out record_other           -> record_other/record contains a record of other
out record_step            -> step_000000002.npz is damaged .*: remove it
out record_empty           -> step_000000002.npz is damaged .*: remove it
out record_cut             -> step_000000002.npz is damaged .*: remove it
"""


def table(text: str) -> list[tuple[str, str]]:
    pairs = [line.split("->", 1) for line in text.splitlines() if "->" in line]
    return [(left.strip(), right.strip()) for left, right in pairs]


def commands() -> list[tuple[str, str]]:
    found = []
    for option, values in NUMBERS.items():
        name = option.split()[1]
        found += [(f"{option}={value}", f"{name}: .*(must be|expected)") for value in values]
    found += table(LINES)
    for wrong, says in table(RUNS):
        option, value = wrong.split()
        # Steps that are recorded before the error are kept: it has to be where there are some.
        out = "record_good" if value in ("run_later_nan", "run_reshaped") else "new"
        parts = {"checkpoints": "run", "data": "good.npz", "out": out, option: value}
        line = LENS.format(**parts)
        line = line.replace("tiny:perceptron", value) if option == "model" else line
        found.append((line, says))
    return found
