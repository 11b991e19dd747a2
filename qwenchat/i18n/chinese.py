"""The Chinese texts: each English text of the code and its translation.

Owns the Chinese words, in the order in which a user meets them: the chat and its commands first, then
sessions, files and settings, and last what only the command line says. Does not know when a text is said;
``language.tr`` finds it here by its English.

A session is 会话, a chat 对话, a turn 轮, a reply 回复, a prompt of the system 系统提示词, what the model is
given to read 输入, to pin 固定, what is left out of the context 移出. A token is called token, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping

from qwenchat.i18n.chinese_help import HELP

CHINESE: Mapping[str, str] = {
    # --- the chat: its prompt and toolbar ---------------------------------------------------------
    "say something, or /help": "输入消息，或 /help",
    "[paste {number}: {count} lines]": "[粘贴 {number}：{count} 行]",
    "[paste {number}: {count} characters]": "[粘贴 {number}：{count} 个字符]",
    "Ctrl-C again or Ctrl-D leaves": "再按 Ctrl-C 或按 Ctrl-D 退出",
    "no earlier line contains {text}": "输入过的内容里没有 {text}",
    "context {used}/{size}": "上下文 {used}/{size}",
    "{speed} tokens/s": "{speed} token/秒",
    "question {n} in other words": "改写第 {n} 个问题",
    "{path}: {size}": "{path}：{size}",
    "{title}: {text}": "{title}：{text}",
    "{method}, {count} bits": "{method}，{count} 位",
    "{number}: {language}, {size}": "{number}：{language}，{size}",
    "{lines}, {tokens}": "{lines}，{tokens}",
    "{count} lines": "{count} 行",
    "{count} tokens": "{count} 个 token",
    "Alt-Enter sends": "Alt-Enter 发送",
    "not saved": "不保存",
    "/model NAME tries another": "可用 /model NAME 换一个模型",
    "reading {done}/{total} tokens, {seconds} s left": "正在读取 {done}/{total} 个 token，还需 {seconds} 秒",
    # --- the chat: how a reply ended, and what left the context -----------------------------------
    "interrupted": "已中断",
    "cut by the limit": "因长度上限而截断",
    "stopped by an error": "因错误而停止",
    "interrupted; /continue goes on, /retry answers again": "已中断；/continue 继续，/retry 重新回答",
    "the reply was cut by the limit; /continue goes on": "回复达到长度上限，已截断；/continue 继续",
    "turn {n} no longer fits the context and is left out; /pin keeps a turn": (
        "上下文已放不下第 {n} 轮，已将其移出；/pin 可固定某一轮"
    ),
    "turns {turns} no longer fit the context and are left out; /pin keeps a turn": (
        "上下文已放不下第 {turns} 轮，已将其移出；/pin 可固定某一轮"
    ),
    "left out, as the context is full: turn {turns}": "上下文已满，已移出第 {turns} 轮",
    "the context of {tokens} tokens is full; turn {turns} no longer fits": (
        "{tokens} 个 token 的上下文已满，第 {turns} 轮放不下"
    ),
    "--overflow drop leaves the oldest turns out; a new chat begins empty": (
        "--overflow drop 会移出最早的几轮，也可开始新对话"
    ),
    "the message makes a prompt of {tokens} tokens, the context holds {window}": (
        "这条消息构成的输入有 {tokens} 个 token，上下文只能容纳 {window} 个"
    ),
    "shorten it, or raise --context if the model allows it": "请缩短消息，或在模型允许时增大 --context",
    "the message and the pinned turns make a prompt of {tokens} tokens, the context holds {window}": (
        "这条消息和已固定的轮次构成的输入有 {tokens} 个 token，上下文只能容纳 {window} 个"
    ),
    "shorten it, /unpin a turn, or raise --context if the model allows it": (
        "请缩短消息、用 /unpin 取消固定某一轮，或在模型允许时增大 --context"
    ),
    "shorten it, or start qwenchat with a larger --context if the model allows it": (
        "请缩短消息，或在模型允许时以更大的 --context 启动 qwenchat"
    ),
    "shorten it, /unpin a turn, or start qwenchat with a larger --context if the model allows it": (
        "请缩短消息、用 /unpin 取消固定某一轮，或在模型允许时以更大的 --context 启动 qwenchat"
    ),
    "/clear begins a new chat; started with --overflow drop, qwenchat leaves turns out": (
        "/clear 开始新对话；以 --overflow drop 启动时，qwenchat 会移出最早的几轮"
    ),
    "there is no message to answer": "没有待回答的消息",
    "say something": "请先输入消息",
    "there is no question to answer": "没有待回答的问题",
    "there is no question to reply to": "没有可回复的问题",
    # --- models on servers ------------------------------------------------------------------------
    "--complete goes on with a text on this machine alone": "--complete 只能用本机上的模型续写文本",
    "--schema holds it to JSON": "--schema 可限定为 JSON",
    "/continue goes on with the reply, /retry asks again": "/continue 接着回复，/retry 重新提问",
    "/retry begins it anew": "/retry 重新回复",
    "/set {name} default leaves it out": "/set {name} default 可去掉它",
    "a web page": "一个网页",
    "ask again": "请重新提问",
    "asking {host}": "正在询问 {host}",
    "ca_file under [remotes.NAME], or SSL_CERT_FILE, names those to trust": (
        "要信任的证书由 [remotes.NAME] 下的 ca_file 或 SSL_CERT_FILE 指定"
    ),
    "does the URL end as the protocol's, in /v1?": "URL 是否像该协议那样以 /v1 结尾？",
    "give the URL of that place, if it is meant": "如果要用那里，请给出它的 URL",
    "is the server running there?": "服务器在那里运行吗？",
    "it closed the connection": "它关闭了连接",
    "it does not say why": "它没有说明原因",
    "it has {names}": "它有 {names}",
    "it holds a password; a key stands in key_file under [remotes]": (
        "其中含有密码；密钥应写在 [remotes] 下的 key_file 里"
    ),
    "it holds a query": "其中含有查询参数",
    "it names no host": "其中没有主机名",
    "key_file or key_env under [remotes.NAME] says where it is": (
        "密钥的位置由 [remotes.NAME] 下的 key_file 或 key_env 指定"
    ),
    "leave it out: {flag}, or {key} in the config file": "请去掉它：{flag}，或配置文件里的 {key}",
    "name one behind the URL, as in {url}#MODEL: {names}": "请在 URL 后指定一个，如 {url}#MODEL：{names}",
    "no connection after {seconds} s": "{seconds} 秒后仍未连上",
    "shorten them": "请缩短",
    "tables with url and perhaps model, key_file, key_env, ca_file, context, silence (seconds) and "
    "allow_http": (
        "带有 url 的表，还可有 model、key_file、key_env、ca_file、context、silence（秒）、allow_http"
    ),
    "the certificate of {host} is not trusted: {reason}": "{host} 的证书不可信：{reason}",
    "the certificates {path} cannot be read: {reason}": "证书 {path} 无法读取：{reason}",
    "the connection to {host} broke off: {reason}": "与 {host} 的连接中断：{reason}",
    "the key file {path} cannot be read: {reason}": "密钥文件 {path} 无法读取：{reason}",
    "the key file {path} is empty": "密钥文件 {path} 是空的",
    "the key of {name} holds more than letters and signs": "{name} 的密钥含有字母和符号以外的内容",
    "the key of {name} would go to {host} unencrypted": "{name} 的密钥会不加密地传给 {host}",
    "the server does not answer in the protocol: {text} is no JSON": "服务器没有按协议回答：{text} 不是 JSON",
    "the server does not answer in the protocol: {where} is {kind}": (
        "服务器没有按协议回答：{where} 是 {kind}"
    ),
    "the server ended the reply: {reason}": "服务器结束了回复：{reason}",
    "the server failed: {reason}": "服务器出错：{reason}",
    "the server sent an event of more than {limit} MiB": "服务器发来的一个事件超过 {limit} MiB",
    "the server's reply is longer than {limit} MiB": "服务器的回复超过 {limit} MiB",
    "use https://; where the network can be trusted, allow_http = true under [remotes.{name}]": (
        "请用 https://；如果网络可信，可在 [remotes.{name}] 下写 allow_http = true"
    ),
    "{host} answers in {encoding}, which was not asked for": "{host} 用未请求的 {encoding} 编码回答",
    "{host} answers with a web page": "{host} 回答的是网页",
    "{host} answers with more than {limit} MiB": "{host} 的回答超过 {limit} MiB",
    "{host} answers with nothing": "{host} 的回答是空的",
    "{host} does not answer in HTTP: {reason}": "{host} 没有按 HTTP 回答：{reason}",
    "{host} ended the reply in the middle": "{host} 中途结束了回复",
    "{host} gave no answer": "{host} 没有回答",
    "{host} has no model": "{host} 没有模型",
    "{host} has no model {model}": "{host} 没有模型 {model}",
    "{host} has said nothing for {seconds} s": "{host} 已有 {seconds} 秒没有回应",
    "{host} has several models": "{host} 有多个模型",
    "{host} refuses ({status}): {reason}": "{host} 拒绝（{status}）：{reason}",
    "{host} sends elsewhere: {place}; nothing was sent there": (
        "{host} 转往别处：{place}；没有向那里发送任何内容"
    ),
    "{host} wants another key ({status})": "{host} 需要另一个密钥（{status}）",
    "{host}: the messages do not fit: {reason}": "{host}：消息太长：{reason}",
    "--think-tokens does nothing with a model on a server": "--think-tokens 对服务器上的模型不起作用",
    "{model} cannot go on with a reply: it is begun anew": "{model} 不能接着回复：重新开始",
    "{name} is no URL of a server: {problem}": "{name} 不是服务器的 URL：{problem}",
    "{server} cannot go on with a reply": "{server} 不能接着回复",
    "{server} does not say its context: taken as {tokens} tokens; --context says it": (
        "{server} 没有说明上下文长度：按 {tokens} 个 token 处理；可用 --context 指定"
    ),
    "{server} does not take {name}: {reason}": "{server} 不接受 {name}：{reason}",
    "{server} holds no reply to a grammar or a choice of words": (
        "{server} 不能把回复限定为某个语法或几个词之一"
    ),
    "{server} takes no {name}": "{server} 不接受 {name}",
    "{variable}, which holds the key of {name}, is not set": "存放 {name} 密钥的 {variable} 没有设置",
    # --- /help: the headings and the last lines ---------------------------------------------------
    "The chat": "对话",
    "The model": "模型",
    "Sessions": "会话",
    "Files and the clipboard": "文件与剪贴板",
    "The terminal": "终端",
    "Enter sends, Alt-Enter breaks the line, Ctrl-C stops a reply, Ctrl-D leaves.": (
        "Enter 发送，Alt-Enter 换行，Ctrl-C 停止回复，Ctrl-D 退出。"
    ),
    "Tab completes, Ctrl-R searches what was typed, Ctrl-X Ctrl-E opens your editor.": (
        "Tab 补全，Ctrl-R 搜索输入历史，Ctrl-X Ctrl-E 打开编辑器。"
    ),
    "@PATH in a message puts a text file in; // begins a message that starts with a slash.": (
        "在消息中写 @PATH 可附上文本文件；消息以斜杠开头时请写成 //。"
    ),
    # --- /help: the chat --------------------------------------------------------------------------
    "Undo the last turn, or the last N.": "撤销最后一轮或最后 N 轮。",
    "Redo what /undo took back.": "恢复被 /undo 撤销的轮次。",
    "Answer the last question again; the old answer stays beside it.": "重新回答最后一个问题，原回复仍保留。",
    "Go on with a reply that was interrupted or cut.": "继续被中断或截断的回复。",
    "Go to the next answer to the same question, or the next form of the question.": (
        "转到同一问题的下一个回复，或该问题的下一种问法。"
    ),
    "Go to the previous one.": "转到上一个。",
    "Edit the last question, or question N, on a new branch.": ("在新分支上改写最后一个问题或第 N 个问题。"),
    "Name this branch, or list the named ones.": "为当前分支命名，或列出已命名的分支。",
    "Go to a named branch.": "切换到已命名的分支。",
    "Always keep turn N in the context.": "固定第 N 轮，使其始终留在上下文中。",
    "Let turn N leave the context again.": "取消固定第 N 轮。",
    "Show how full the context is, turn by turn.": "逐轮显示上下文的占用情况。",
    "Print the chat so far.": "显示到目前为止的对话。",
    "Begin a new chat; this one stays in the sessions.": "开始新对话，当前对话保留在会话中。",
    # --- /help: the model -------------------------------------------------------------------------
    "Show the system prompt, or set it: a text, the name of one in the config, none, or default for the "
    "model's own.": ("显示或设置系统提示词：一段文字、配置中的名称、none（无）或 default（模型自带的）。"),
    "Show the model, or load another.": "显示当前模型，或加载其他模型。",
    "Show the sampling options, or set one; default leaves it to the model.": (
        "显示采样选项，或设置其中一项；default 表示由模型决定。"
    ),
    "Show the seed, or set it.": "显示或设置种子。",
    "Show the speed and the tokens of the last reply.": "显示上一条回复的用量与耗时。",
    # --- /help: sessions --------------------------------------------------------------------------
    "List the last 20 sessions, or the last N.": "列出最近保存的 20 个或 N 个会话。",
    "Go on with another session: an id, a title, the beginning of either, or the latest.": (
        "继续另一个会话：给出 ID、标题或其开头，省略则为最近的会话。"
    ),
    "Give this session another title.": "修改当前会话的标题。",
    "Go on in a copy of this session; the original stays as it is.": "在当前会话的副本中继续，原会话不变。",
    "Delete this session, or another; it asks before it does.": "删除当前会话或其他会话，删除前会询问。",
    "Find the sessions that contain a text.": "查找包含某段文本的会话。",
    "Write the chat to a file: md, html, json or txt; by default its ending decides, else md.": (
        "将对话导出为 md、html、json 或 txt 文件；省略格式时由扩展名决定，否则为 md。"
    ),
    # --- /help: files and the clipboard, the terminal ---------------------------------------------
    "Attach a text file to the next message, or list the attached ones.": (
        "在下一条消息中附上文本文件，或列出已附上的文件。"
    ),
    "Detach the files from the next message, or one of them.": ("移除下一条消息中附上的全部文件或其中一个。"),
    "Copy the last reply, the reply of turn N, or the last reply's code to the clipboard.": (
        "将最后一条回复、第 N 轮的回复或最后一条回复中的代码复制到剪贴板。"
    ),
    "Write the last reply's code, or its block N, to a new file.": (
        "将最后一条回复中的代码或其第 N 个代码块写入新文件。"
    ),
    "Write the next message in your editor; closing it does not send.": (
        "用编辑器撰写下一条消息；关闭编辑器不会发送。"
    ),
    "Swap Enter and Alt-Enter: which sends, and which breaks the line.": (
        "交换 Enter 与 Alt-Enter：由谁发送，由谁换行。"
    ),
    "List the themes, or choose one.": "列出主题，或选用其中一个。",
    "List the commands, or explain one.": ("显示对话中可用的命令，或其中一个的用途。"),
    "also called {names}": "也可写成 {names}",
    "Leave the chat.": "退出。",
    # --- commands that are none -------------------------------------------------------------------
    "unknown command {word}": "没有命令 {word}",
    "did you mean /{name}?": "是不是 /{name}？",
    "/help lists them": "/help 可列出所有命令",
    " (a message may begin with //)": "（若是以斜杠开头的消息，请写成 //）",
    "{command} takes no argument": "{command} 不接参数",
    "use {usage} alone": "请只输入 {usage}",
    "{command} needs an argument": "{command} 后面需要一个参数",
    "usage: {usage}": "用法：{usage}",
    "{text!r}: expected a whole number, 1 or more": "{text!r}：应为不小于 1 的整数",
    "internal error: {error}": "内部错误：{error}",
    # --- going through the turns ------------------------------------------------------------------
    "took back {count} turns": "已撤销 {count} 轮",
    "went forward {count} turns": "已恢复 {count} 轮",
    "nothing to undo": "没有可撤销的轮次",
    "nothing to redo": "没有可恢复的轮次",
    "the chat is empty": "对话是空的",
    "turn {n} is the last: {question!r}": "最后一轮是第 {n} 轮：{question!r}",
    "there is no question to try again": "没有可重新回答的问题",
    "no reply was interrupted or cut": "没有中断或截断的回复",
    "/retry answers the question again": "/retry 可重新回答问题",
    "this is the first of {count}": "已是第一个（共 {count} 个）",
    "this is the last of {count}": "已是最后一个（共 {count} 个）",
    "the last turn has no alternatives": "最后一轮没有其他版本",
    "/retry and /edit make some": "可用 /retry 和 /edit 创建",
    "there is no turn {n}": "没有第 {n} 轮",
    "there are {count} turns": "共有 {count} 轮",
    "no question yet": "还没有提过问题",
    "no reply yet": "还没有回复",
    "this branch is called {name}": "当前分支已命名为：{name}",
    "no branch has a name yet; /branch NAME names this one": "还没有已命名的分支；/branch NAME 命名当前分支",
    "a branch's name has 1 to {limit} printable characters": "分支名须为 1 到 {limit} 个可打印字符",
    "nothing to name yet": "还没有可命名的分支",
    "say something first": "请先发送一条消息",
    "the branch {name!r} already exists": "已有分支 {name!r}",
    "there is no branch {name!r}": "没有分支 {name!r}",
    "there are {names}": "可选：{names}",
    "none has a name yet": "还没有已命名的分支",
    "on branch {name}": "已切换到分支：{name}",
    # --- the context ------------------------------------------------------------------------------
    "turn {n} stays in the context": "已将第 {n} 轮固定在上下文中",
    "turn {n} may leave the context": "已取消固定第 {n} 轮",
    "turn {n} is not pinned": "第 {n} 轮未被固定",
    "the model is still loading": "模型仍在加载",
    "counting needs its tokenizer": "需要用它的分词器来计数",
    "system": "系统",
    "turn": "轮次",
    "tokens": "token 数",
    "text": "内容",
    "pinned": "已固定",
    "left out": "已移出",
    "{used} of {size} tokens": "已用 {used} / {size} 个 token",
    "{count} earlier turns; /history shows all": "之前还有 {count} 轮；/history 可显示全部",
    "… and {count} characters more; /history shows all": "……还有 {count} 个字符；/history 可显示全部",
    "a new chat": "已开始新对话",
    # --- the model and its options ----------------------------------------------------------------
    "there is no system prompt": "没有系统提示词",
    "there is no system prompt; the model has none of its own": "没有系统提示词，模型也没有自带的",
    "the model's own system prompt: {text}": "模型自带的系统提示词：{text}",
    "the model's own system prompt, which is known once it is loaded": "模型自带的系统提示词，模型加载后可知",
    "(the model decides)": "（由模型决定）",
    "{value} ({origin})": "{value}（{origin}）",
    "command line": "命令行",
    "this chat": "当前对话",
    "settings": "设置",
    "random": "随机",
    "what the context leaves": "上下文余下的长度",
    "none": "无",
    "temperature is 0: the same model answers the same; /set temperature 0.7 lets it differ": (
        "temperature 为 0：同一模型的回答不变；/set temperature 0.7 可使其变化"
    ),
    "the prompt's length changed the NTK alpha: what was cached could not be reused": (
        "输入长度改变了 NTK alpha：缓存的内容无法复用"
    ),
    "prompt: reused {reused} + new {new} tokens in {seconds} s, {speed}": (
        "输入：复用 {reused} + 新增 {new} 个 token，用时 {seconds} 秒，{speed}"
    ),
    "reply: {tokens}, {speed}": "回复：{tokens}，{speed}",
    "reply: {tokens}, {speed}, {right} of {guessed} guessed ahead were right": (
        "回复：{tokens}，{speed}，提前猜测 {guessed} 个，猜对 {right} 个"
    ),
    "first token after {seconds} s": "首个 token 用时 {seconds} 秒",
    "prompt: all {reused} tokens reused": "输入：全部 {reused} 个 token 均已复用",
    "no time": "用时为零",
    "seed: {seed}": "种子：{seed}",
    "none was needed": "未使用",
    # --- the chat: tools --------------------------------------------------------------------------
    "--max-steps allows more": "--max-steps 可以允许更多步",
    "/continue lets it go on": "/continue 让它继续",
    "ask it otherwise": "请换一种问法",
    "no answer after {count} steps with tools": "使用工具 {count} 步后仍没有回答",
    "the model called {tool} {count} times with the same arguments": (
        "模型用相同的参数调用了 {tool} {count} 次"
    ),
    "there are two tools called {name}": "有两个工具都叫 {name}",
    "name one of them otherwise": "请给其中一个换个名字",
    "there is no tool {name!r}": "没有工具 {name!r}",
    "there are {names}; a Python file's are named by its path": (
        "有 {names}；Python 文件中的工具用文件路径指定"
    ),
    "there is none": "一个也没有",
    "there is no call to respond to": "没有可以回应的调用",
    "{name} needs a folder": "{name} 需要一个文件夹",
    "name one that is there: {name}=FOLDER": "请指定一个存在的文件夹：{name}=FOLDER",
    "web_fetch needs the hosts that it may ask": "web_fetch 需要指定可以访问的主机",
    "name them: web_fetch=example.org,example.com": "请这样指定：web_fetch=example.org,example.com",
    "{path} does not import: {reason}": "{path} 无法导入：{reason}",
    "{path}: there is no function for a tool in it": "{path}：其中没有可作工具的函数",
    "a tool is a function with types and a docstring, whose name has no underscore before it": (
        "工具是带类型和文档字符串、名字不以下划线开头的函数"
    ),
    "{path}: {name} cannot be a tool: {problem}": "{path}：{name} 不能作为工具：{problem}",
    "give it types that JSON has, or begin its name with an underscore": (
        "请使用 JSON 有的类型，或让它的名字以下划线开头"
    ),
    "{text!r} is no rule": "{text!r} 不是规则",
    "a rule is a tool, or tool(argument=pattern): read_file(path=docs/*)": (
        "规则是工具名，或 工具(参数=模式)：read_file(path=docs/*)"
    ),
    "/tools add TOOLS adds, /tools drop NAME drops": "/tools add TOOLS 添加，/tools drop NAME 移除",
    "/tools does not know {word!r}": "/tools 不认识 {word!r}",
    "allowed": "允许",
    "allowed by the rule {rule}": "规则 {rule} 允许",
    "asks": "先询问",
    "calls like {rule} never run in this chat": "在本次对话中，符合 {rule} 的调用一律不运行",
    "calls like {rule} run unasked in this chat": "在本次对话中，符合 {rule} 的调用不再询问",
    "dropped {tool}": "已移除 {tool}",
    "drops it": "移除它",
    "no tools; /tools add time adds one, /tools add FILE.py the functions of a file": (
        "没有工具；/tools add time 添加一个，/tools add FILE.py 添加文件中的函数"
    ),
    "none yet": "还没有",
    "not run, as nobody can be asked; --allow {rule!r} lets it run": (
        "无法询问，因此未运行；--allow {rule!r} 可以允许它"
    ),
    "result {n}": "结果 {n}",
    "run it? y, a, e, or why not: ": "运行吗？y、a、e，或不运行的理由：",
    "runs unasked": "直接运行",
    "step {n}": "第 {n} 步",
    "there are {count}": "共有 {count} 个",
    "there is no result {n}": "没有第 {n} 个结果",
    "y runs it · a also what {rule} allows, in this chat · e edits it · Enter does not": (
        "y 运行 · a 并在本次对话中允许 {rule} · e 先修改 · 回车不运行"
    ),
    "{count} lines more; /result {n}": "还有 {count} 行；/result {n}",
    "{tool}: no result": "{tool}：没有结果",
    "Tools": "工具",
    "List the tools that the model may call; add some, or drop one.": (
        "列出模型可以调用的工具；添加或移除工具。"
    ),
    "Let calls run without asking, in this chat.": "在本次对话中，让这样的调用直接运行。",
    "Let calls never run, in this chat, whatever allows them.": ("在本次对话中，让这样的调用一律不运行。"),
    "Show the last result of a tool whole, or result N of the chat.": (
        "完整显示工具的最近一个结果，或本次对话的第 N 个结果。"
    ),
    "What the model may call: Python files, and tools of the program with what they need, such as "
    "time or read_file,search_files=FOLDER.": (
        "模型可以调用什么：Python 文件，以及程序自带的工具及其所需，如 time、read_file=FOLDER。"
    ),
    "Calls that run without asking: rules such as time or read_file(path=docs/*).": (
        "不经询问就运行的调用：如 time 或 read_file(path=docs/*) 的规则。"
    ),
    "Calls that never run, whatever allows them: rules as above.": "无论如何都不运行的调用：规则同上。",
    "Steps with calls of tools that an answer may take.": "一次回答最多可有多少步调用工具。",
    "running {tool}; Ctrl-C stops it": "正在运行 {tool}；Ctrl-C 停止",
    "{origin} says otherwise of {tool} than when you allowed it": (
        "{origin} 对 {tool} 的说明与您允许它时不同"
    ),
    "{path}: the server {name} has neither a command nor a url, or what is unknown here": (
        "{path}：服务器 {name} 没有 command 或 url，或含有未知内容"
    ),
    "a server has command, args, env and cwd, or url and headers": (
        "服务器有 command、args、env 和 cwd，或 url 和 headers"
    ),
    "{path}: there are no mcpServers in it": "{path}：其中没有 mcpServers",
    "{path}: the server {name} does not start: {reason}": "{path}：服务器 {name} 无法启动：{reason}",
    "--schema, --grammar and --choice hold an answer without tools": (
        "--schema、--grammar 和 --choice 用于不带工具的回答"
    ),
    "leave out --tools": "请去掉 --tools",
    "the answer was cut before it was whole, and does not fit": "回答在完成前被截断，不符合要求",
    "--max-new-tokens allows a longer one": "--max-new-tokens 可以允许更长的回答",
    "--schema, --grammar and --choice cannot be combined": ("--schema、--grammar 和 --choice 不能同时使用"),
    "{path} holds no JSON schema": "{path} 中没有 JSON schema",
    "--choice has an empty word": "--choice 中有空的词",
    "separate the words by commas: --choice yes,no": "请用逗号分隔：--choice yes,no",
    "the schema or the grammar cannot be used: {reason}": "无法使用这个 schema 或语法：{reason}",
    "the answer cannot be held to the schema or the grammar: {reason}": (
        "无法让回答符合这个 schema 或语法：{reason}"
    ),
    "a simpler one may do": "换一个更简单的也许可行",
    "the package llguidance is missing, which holds replies to a grammar": (
        "缺少软件包 llguidance，它让回复符合语法"
    ),
    "pip install llguidance": "请运行 pip install llguidance",
    # --- the sessions of a chat -------------------------------------------------------------------
    "{model} answered last; /model {model} loads it": "上次由 {model} 回答；/model {model} 可加载它",
    "this is {title!r} of {date}, {count} turns": "会话 {title!r}，{date}，共 {count} 轮",
    "its last reply is incomplete; /continue goes on with it": "最后一条回复不完整，/continue 可继续",
    "{count} more; /sessions {all} lists them all": "还有 {count} 个；/sessions {all} 可列出全部",
    "there is no other session": "没有其他会话",
    "this is the session that you are in": "这就是当前会话",
    "this session is called {title}": "当前会话已命名为：{title}",
    "this chat was not saved": "当前对话没有保存",
    "nothing to delete": "没有可删除的内容",
    "{question} [y/N] ": "{question}（y/N）",
    "nothing to copy yet": "还没有可复制的内容",
    "this is a copy, {title}": "已转到副本：{title}",
    "it stays": "未删除",
    "nothing to export yet": "还没有可导出的内容",
    # --- sessions ---------------------------------------------------------------------------------
    "there are no sessions yet": "还没有会话",
    "no session yet; starting a new one": "还没有会话，已新建一个",
    "{title!r} is dated ahead of this machine's clock, so it is not taken for the latest; "
    "-s {id} goes on with it": ("{title!r} 的日期晚于本机时钟，因此不视为最近的会话；用 -s {id} 可继续它"),
    "dated ahead of the clock": "日期晚于时钟",
    "its beginning does not say what it is, and it is too large to be listed": (
        "文件开头看不出内容，且文件过大，无法列出"
    ),
    "this file system has no locks: sessions are saved without, so open each only once": (
        "此文件系统不支持文件锁：会话将不加锁保存，请勿同时多次打开同一会话"
    ),
    "there is no session {name!r}": "没有会话 {name!r}",
    "it was deleted just now": "它刚刚被删除了",
    "/sessions shows them": "/sessions 可列出所有会话",
    "qwenchat sessions list shows them": "qwenchat sessions list 可列出所有会话",
    "none was saved yet": "还没有保存过会话",
    "{count} sessions match {name!r}": "有 {count} 个会话与 {name!r} 匹配",
    "give an id: {ids}": "请指定 ID：{ids}",
    "nothing to search for": "没有指定要查找的文本",
    "no session contains {text!r}": "没有会话包含 {text!r}",
    "{title!r} ({count} turns)": "{title!r}（{count} 轮）",
    "{title!r} (cannot be read)": "{title!r}（无法读取）",
    "delete {session}?": "删除 {session}？",
    "deleted {title!r}": "已删除 {title!r}",
    "its lines could not be removed from {path}: {reason}": "无法从 {path} 中删除它的输入记录：{reason}",
    "a title cannot be empty": "标题不能为空",
    "the session {title!r} is open in another qwenchat": "会话 {title!r} 已在另一个 qwenchat 中打开",
    "close it there, or fork it": "请在那里关闭它，或为它创建副本",
    "the session {title!r} is read-only: {reason}": "会话 {title!r} 是只读的：{reason}",
    "/fork goes on in a copy": "/fork 可在副本中继续",
    "{title} (fork)": "{title}（副本）",
    "{reason}; this is a fork of it": "{reason}；当前是它的副本",
    "cannot save the session: {reason}": "无法保存会话：{reason}",
    "it is not safe on the disk; QWENCHAT_HOME names another folder": (
        "它没有安全写入磁盘；可用 QWENCHAT_HOME 指定其他文件夹"
    ),
    "it is not safe on the disk; free some room, or set QWENCHAT_HOME to another folder": (
        "会话尚未写入磁盘；请腾出空间，或将 QWENCHAT_HOME 设为其他文件夹"
    ),
    "the file that was in the session's place is kept as {path}": "会话位置上原有的文件已保留为 {path}",
    "the session's {name} is ignored: expected {what}": "已忽略会话中的 {name}：应为{what}",
    "cannot read {path}: {reason}": "无法读取 {path}：{reason}",
    "cannot delete {path}: {reason}": "无法删除 {path}：{reason}",
    # --- sessions: the heads of lists -------------------------------------------------------------
    "session": "会话",
    "saved": "保存时间",
    "turns": "轮数",
    "title": "标题",
    # --- sessions: what is wrong with a file ------------------------------------------------------
    "cannot be read: {why}": "无法读取：{why}",
    "it is left as it is": "文件保持原样",
    "it is left as it is; to go on with it moves it aside": "文件保持原样；若继续该会话，会先把它移到一边",
    "it is larger than {n} MB": "文件大于 {n} MB",
    "larger than {n} MB": "文件大于 {n} MB",
    "it is a symbolic link": "这是符号链接",
    "it is nested too deeply": "嵌套过深",
    "it is not JSON": "不是有效的 JSON",
    "it is not JSON in line {n}": "第 {n} 行不是有效的 JSON",
    "it has no schema number": "没有标明 schema",
    "its fields are not those of schema {n}": "内容不符合 schema {n}",
    "it was written by a newer qwenchat (schema {newer}; this one reads {known})": (
        "由更新版本的 qwenchat 写入（schema {newer}，当前版本只支持到 {known}）"
    ),
    "update qwenchat to go on with it": "更新 qwenchat 后才能继续该会话",
    "its dates are not dates": "日期无效",
    "the setting {name!r} has a value it cannot have": "设置 {name!r} 的值无效",
    "{where} is not an object": "{where} 不是对象",
    "{where}: {name!r} has a value it cannot have": "{where}：{name!r} 的值无效",
    "{where}: {name!r} is missing": "{where}：缺少 {name!r}",
    "{where}: unknown field {name!r}": "{where}：未知字段 {name!r}",
    # --- files in a message -----------------------------------------------------------------------
    "no file is attached; /file PATH or @PATH attaches one": (
        "下一条消息没有附上文件；/file PATH 或 @PATH 可附上"
    ),
    "detached {count} files": "已从下一条消息中移除 {count} 个文件",
    "{path} is not attached": "下一条消息没有附上 {path}",
    "no file is": "没有附上任何文件",
    "{path} is not a file here; sent as text": "这里没有文件 {path}，按普通文本发送",
    "{path} is a folder; sent as text": "{path} 是文件夹，按普通文本发送",
    "there is no file {path}": "没有文件 {path}",
    "{path} cannot be read: {reason}": "无法读取 {path}：{reason}",
    "{path} is larger than {limit} KiB": "{path} 大于 {limit} KiB",
    "send a part of it": "请只发送其中一部分",
    "{path} is a folder": "{path} 是文件夹",
    "name a file in it": "请指定其中的文件",
    "{path} is not a regular file": "{path} 不是普通文件",
    "{path} is binary": "{path} 是二进制数据",
    "only text can be sent": "只能发送文本",
    "only text can be sent; /put copies it to where Python runs": (
        "只能发送文本；/put 可把它复制到运行 Python 的地方"
    ),
    "Python has {name} in its folder": "{name} 已在 Python 的文件夹中",
    "not a regular file": "不是普通文件",
    "it is a folder": "是文件夹",
    "larger than {size}": "大于 {size}",
    "{path} is not UTF-8 text": "{path} 不是 UTF-8 文本",
    "convert it to UTF-8 first": "请转换为 UTF-8 后再发送",
    "the prompt": "问题",
    "the title": "标题",
    "what is searched for": "要搜索的内容",
    # --- files that are written -------------------------------------------------------------------
    "there is no code in the last reply": "最后一条回复中没有代码",
    "there are {count} blocks of code": "共有 {count} 个代码块",
    "unknown format {kind!r}": "没有格式 {kind!r}",
    "wrote {path}": "已写入 {path}",
    "{path} already exists": "{path} 已存在",
    "{other} is free; --force overwrites": "{other} 可用，--force 则覆盖现有文件",
    "{other} is free": "{other} 可用",
    "give another name": "请换一个名称",
    "{path} cannot be written: {reason}": "无法写入 {path}：{reason}",
    # --- the clipboard ----------------------------------------------------------------------------
    "copied {count} characters by {way}": "已复制 {count} 个字符（{way}）",
    "sent {count} characters to the terminal (OSC 52)": "已把 {count} 个字符发给终端（OSC 52）",
    "the text is too long for a terminal's clipboard": "文本过长，无法放入终端的剪贴板",
    "/export and /save-code write files": "可用 /export 和 /save-code 写入文件",
    "no way to the clipboard was found": "找不到写入剪贴板的方式",
    "install wl-clipboard, xclip or xsel; /export and /save-code write files": (
        "请安装 wl-clipboard、xclip 或 xsel，也可用 /export 和 /save-code 写入文件"
    ),
    # --- the editor -------------------------------------------------------------------------------
    "nothing was written": "没有写任何内容",
    "no editor was found": "找不到编辑器",
    "set EDITOR to its command": "请将 EDITOR 设为编辑器的命令",
    "{name} is not a command: {value}": "{name} 的值不是命令：{value}",
    "the editor {name} cannot be started: {reason}": "无法启动编辑器 {name}：{reason}",
    "the editor was killed": "编辑器被强行终止",
    "what it saved is in {folder}": "它保存的内容在 {folder}",
    "what the editor saved cannot be read: {reason}": "无法读取编辑器保存的内容：{reason}",
    "what the editor saved": "编辑器保存的内容",
    # --- the terminal -----------------------------------------------------------------------------
    "Enter breaks the line, Alt-Enter sends": "Enter 换行，Alt-Enter 发送",
    "Enter sends, Alt-Enter breaks the line": "Enter 发送，Alt-Enter 换行",
    "the theme is {name}": "主题已设为 {name}",
    "unknown theme {name}": "没有主题 {name}",
    "did you mean {name}?": "是不是 {name}？",
    # --- settings ---------------------------------------------------------------------------------
    "default": "默认值",
    "the checkpoint's own seq_length": "检查点自己的 seq_length",
    "as many as there are physical cores for the program": "程序可用的物理核心数",
    "the model's own, if it has one": "模型自带的，如果有",
    "the checkpoint's generation_config.json decides": "由检查点的 generation_config.json 决定",
    "a new one for every reply": "每次回复随机选取",
    "as long as the context leaves room for": "上下文余下的长度",
    "unknown setting {name}": "没有名为 {name} 的设置",
    "did you mean {nearest}?": "是不是 {nearest}？",
    "{variable} is not a setting and is ignored; see qwenchat config show": (
        "{variable} 不是设置，已忽略；设置见 qwenchat config show"
    ),
    "{variable} is not a setting and is ignored; did you mean {nearest}?": (
        "{variable} 不是设置，已忽略；是不是 {nearest}？"
    ),
    "unknown prompt {name}": "没有名为 {name} 的提示词",
    "the config file has no [prompts]; for a text that begins with @, write @@": (
        "配置文件中没有 [prompts]；以 @ 开头的文本请写成 @@"
    ),
    "did you mean @{nearest}? the prompts are {names}": "是不是 @{nearest}？可选：{names}",
    "the prompts are {names}; for a text that begins with @, write @@": (
        "可选：{names}；以 @ 开头的文本请写成 @@"
    ),
    # --- settings: what a value may be, read after 应为, so that each begins with a Chinese word --
    "{setting}: expected {what}": "{setting}：应为{what}",
    "true or false": "布尔值 true 或 false",
    "a whole number, 1 to 62": "从 1 到 62 的整数",
    "a whole number, 1 or more": "不小于 1 的整数",
    "a whole number, 16 or more": "不小于 16 的整数",
    "a whole number from 0 to 9223372036854775807": "从 0 到 9223372036854775807 的整数",
    "a number from 0 to 2": "从 0 到 2 的数",
    "a number above 0, up to 2": "大于 0 且不大于 2 的数",
    "a whole number from 0 to 2147483647": "从 0 到 2147483647 的整数",
    "a number above 0, up to 1": "大于 0 且不大于 1 的数",
    "a number from 0 to 1": "从 0 到 1 的数",
    "a text or a list of texts, none of them empty": "文本或文本列表，且均不为空",
    'text, or "@" and the name of a prompt': '文本，或 "@" 加提示词名称',
    'texts that are not empty, under names of at most 64 letters, digits, "-" and "_"': (
        '非空文本，其名称最多 64 个字符，由字母、数字、"-" 和 "_" 组成'
    ),
    "a known name or a folder": "已知的模型名或文件夹",
    '"auto", "demo", a known name, a folder, a URL#MODEL or the name of a remote': (
        '以下之一："auto"、"demo"、已知的模型名、文件夹、URL#MODEL、远程模型的名称'
    ),
    '"auto", "cpu", "cuda" or "cuda:N"': '以下之一："auto"、"cpu"、"cuda"、"cuda:N"',
    '"auto", "native" or "huggingface"': '以下之一："auto"、"native"、"huggingface"',
    '"auto", "float32", "bfloat16" or "float16"': '以下之一："auto"、"float32"、"bfloat16"、"float16"',
    '"drop" or "error"': '以下之一："drop"、"error"',
    '"auto" or "int8"': '以下之一："auto"、"int8"',
    '"auto", "on" or "off"': '以下之一："auto"、"on"、"off"',
    '"terminal", "dark", "light" or "mono"': '以下之一："terminal"、"dark"、"light"、"mono"',
    '"emacs" or "vi"': '以下之一："emacs"、"vi"',
    '"auto", "en" or "zh"': '以下之一："auto"、"en"、"zh"',
    # --- settings: how they are shown and documented ------------------------------------------------
    "(a number of thousands of digits)": "（数千位的数字）",
    "Allowed: {what}.": "取值：{what}。",
    " If not set: {what}.": "未设置时：{what}。",
    "The model to chat with. auto takes the checkpoint below if it is on this machine and fits, else the "
    "built-in one, which demo always takes.": (
        "对话所用的模型。auto：下面的检查点在本机且放得下时用它，否则用内置模型；demo 总是内置模型。"
    ),
    'The checkpoint that model = "auto" looks for first.': 'model = "auto" 时首先查找的检查点。',
    "What runs the model: native is our own engine, for Qwen, Llama and Mistral, huggingface is "
    "transformers, for these and others; auto takes our own wherever it can.": (
        "运行模型的后端：native 是自带的引擎，用于 Qwen、Llama 和 Mistral；huggingface 是 transformers，"
        "用于这些及其他模型；auto 尽可能用自带的引擎。"
    ),
    "Where the model runs.": "模型在哪里运行。",
    "The number format that the model computes in.": "模型计算所用的数值格式。",
    "The size of the context window, in tokens.": "上下文窗口的大小，以 token 计。",
    "What the context is held in: auto is the number format above, int8 takes half the memory of 16 bits, "
    "for a little less exact answers.": (
        "上下文的存放格式：auto 为上面的数值格式；int8 只占 16 位的一半内存，回答的精度略低。"
    ),
    "Whether a reply is guessed ahead where it repeats what was said, several tokens at a time: auto "
    "where that is faster and changes no reply, on wherever it can be, off never.": (
        "在回答重复前文处，是否一次提前猜测多个 token："
        "auto 只在更快且不改变回答时使用；on 凡可猜处都用；off 从不使用。"
    ),
    "What happens when a chat no longer fits the context: drop leaves the oldest turns out and says so, "
    "error answers nothing.": ("上下文放不下整个对话时：drop 移出最早的几轮并说明，error 则不回答。"),
    "The system prompt; empty for none. @NAME stands for the one of that name under [prompts], @@ at the "
    "beginning for @ itself.": (
        "系统提示词；空文本表示没有。@NAME 指 [prompts] 中的同名提示词，开头的 @@ 表示 @ 本身。"
    ),
    "How freely the next token is drawn; 0 always takes the likeliest.": (
        "选取下一个 token 的随机程度；0 表示总取最可能的。"
    ),
    "Draw among this many of the likeliest tokens; 0 for all.": (
        "只从这么多个最可能的 token 中选取；0 表示全部。"
    ),
    "Draw among the likeliest tokens that together have this probability; 1 for all.": (
        "只从累计概率达到此值的最可能 token 中选取；1 表示全部。"
    ),
    "Draw among the tokens that have at least this share of the likeliest one's probability; 0 for all.": (
        "只从概率不低于最可能 token 这一比例的 token 中选取；0 表示全部。"
    ),
    "How strongly tokens that were used already are held back; 1 for not at all.": (
        "对已出现的 token 的抑制程度；1 表示不抑制。"
    ),
    "The seed of the random draw: the same seed, the same reply.": "随机选取的种子：种子相同，回复相同。",
    "The longest reply, in tokens.": "回复的最大长度，以 token 计。",
    "Let the model think before it answers, or not, where it can do both.": (
        "是否让模型先思考再回答（限两者皆可的模型）。"
    ),
    "what the model does by itself": "由模型决定",
    "The longest thinking, in tokens; then the model is told to answer.": (
        "思考的最大长度，以 token 计；之后让模型作答。"
    ),
    "as long as the model thinks": "不限",
    "Show all that the model thinks: in the chat above the answer, with ask on stderr.": (
        "完整显示模型的思考：在对话中显示于回答之上，ask 则写到标准错误。"
    ),
    "A reply ends before the first of these texts.": "回复在首次出现这些文本之一时结束，不含该文本。",
    "Keep chats as sessions.": "将对话保存为会话。",
    "Keep the lines typed at the prompt, for the Up key in later chats. Where chats are not saved, they are "
    "not kept either.": ("保存输入过的行，供之后的对话用上方向键调出。不保存对话时也不保存它们。"),
    "No Markdown and no live view: a reply is shown as the text that comes.": (
        "不渲染 Markdown，也不实时重绘：回复按原文显示。"
    ),
    "The colours. terminal takes those of the terminal's own palette, dark and light suit such a background, "
    "mono does without.": (
        "配色。terminal 使用终端自己的调色板，dark 和 light 适合深色和浅色背景，mono 不用颜色。"
    ),
    "The keys that edit the line at the prompt.": "编辑输入行所用的按键。",
    "The language of notices and of /help; auto follows the locale. What the model says does not depend "
    "on it.": ("提示和 /help 的语言；auto 取系统区域设置的语言。与模型的回答无关。"),
    "Print nothing on stderr but errors.": "标准错误上只输出错误。",
    "Print tokens and speed on stderr after each reply.": "每次回复后在标准错误上显示 token 数和速度。",
    "Models on servers, by name: -m lab takes the one below. model may be left out where the server has "
    "one alone; the key stands in key_file, or in the environment variable that key_env names. "
    "QWENCHAT_REMOTES takes a JSON object.": (
        "按名称给出的服务器上的模型：-m lab 使用下面这一个。服务器只有一个模型时可省略 model；密钥写在 "
        "key_file 里，或写在 key_env 所指的环境变量里。QWENCHAT_REMOTES 可为一个 JSON 对象。"
    ),
    'System prompts by name: system = "@teacher" takes the one below. [prompts] stays at the end of the '
    "file, since all that follows belongs to it; so no prompt can have a setting's name. QWENCHAT_PROMPTS "
    "takes a JSON object.": (
        '按名称给出的系统提示词：system = "@teacher" 使用下面这一个。[prompts] 须放在文件末尾，'
        "其后的内容都属于它；因此提示词不能与设置同名。QWENCHAT_PROMPTS 可为一个 JSON 对象。"
    ),
    "# The settings of qwenchat. Everything here is commented out, so this file changes nothing as it is;\n"
    "# `qwenchat config path` says where it belongs, `qwenchat config show` what is in force and why.\n"
    "#\n"
    "# An environment variable wins over this file (QWENCHAT_TOP_P over top_p), and a flag of the command\n"
    "# line over both (--top-p). A key with a default shows it below; one without shows an example.\n": (
        "# qwenchat 的设置。这里的内容都已注释掉，因此该文件本身不改变任何设置；\n"
        "# `qwenchat config path` 显示它应在的位置，`qwenchat config show` 显示生效的值及其来源。\n"
        "#\n"
        "# 环境变量优先于此文件（QWENCHAT_TOP_P 优先于 top_p），命令行选项（--top-p）又优先于两者。\n"
        "# 有默认值的键在下面写出默认值，没有的则写出示例。\n"
    ),
    # --- loading a model --------------------------------------------------------------------------
    "starting": "正在启动",
    "importing torch": "正在导入 torch",
    "loading weights": "正在加载权重",
    "preparing kernels": "正在准备计算核",
    "compiling kernels, once": "正在编译计算核（仅此一次）",
    "needs {needed} GiB, {free} GiB free": "需要 {needed} GiB，可用 {free} GiB",
    "falling back from the {kind} kernels to {path}: {reason}": (
        "不使用 {kind} 计算核，改用 {path}：{reason}"
    ),
    "the CUDA kernels cannot be compiled: {reason}": "无法编译 CUDA 计算核：{reason}",
    "the kernels cannot be compiled: {reason}": "无法编译计算核：{reason}",
    "numba cannot be used: {reason}": "numba 无法使用：{reason}",
    "the prepared weights cannot be kept in {folder}: {reason}": "无法在 {folder} 保存准备好的权重：{reason}",
    "the compiled kernels cannot be kept in {folder}: {reason}": (
        "编译好的计算核无法保存到 {folder}：{reason}"
    ),
    "--threads {count} is out of range": "--threads {count} 超出范围",
    "give 1 to {most}": "请给出 1 到 {most} 之间的数",
    "{kind} kernels on {count} threads": "{kind} 计算核，{count} 个线程",
    "plain torch": "普通 torch",
    "plain torch with oneDNN": "普通 torch（oneDNN）",
    "Triton, CUDA graph": "Triton，CUDA graph",
    "CUDA C++, CUDA graph": "CUDA C++，CUDA graph",
    "{quant}, {device} {dtype}{cache}, {kernels}": "{quant}，{device} {dtype}{cache}，{kernels}",
    "unquantised": "未量化",
    ", int8 KV cache": "，int8 KV 缓存",
    "prompt lookup is {value!r}, expected {names}": "提前猜测的取值为 {value!r}，应为 {names}",
    "the KV cache is {value!r}, expected {names}": "KV 缓存为 {value!r}，应为以下之一：{names}",
    "the device is {value!r}, expected auto, cpu, cuda or cuda:N": (
        "设备为 {value!r}，应为 auto、cpu、cuda 或 cuda:N"
    ),
    "the dtype is {value!r}, expected {names}": "数值格式为 {value!r}，应为以下之一：{names}",
    "the backend is {value!r}, expected {names}": "后端为 {value!r}，应为以下之一：{names}",
    "give at least one": "请至少给出一条",
    "unknown option {names}": "没有选项 {names}",
    "shorten it, or load the model with a larger context": "请缩短它，或以更大的上下文加载模型",
    "the model is busy, and {count} requests wait for it": "模型正忙，已有 {count} 个请求在等待",
    "try again later": "请稍后再试",
    "the model was closed": "模型已关闭",
    "the reply was not read while others waited for the model": "回复一直未被读取，而其他请求在等待模型",
    "the model is already generating": "模型正在生成",
    "end or close the other generation first": "请先结束或关闭另一次生成",
    "they compute in float32 and bfloat16": "它们只以 float32 和 bfloat16 计算",
    "a width of {width} is not a multiple of {lanes}": "宽度 {width} 不是 {lanes} 的倍数",
    "a vocabulary of {count} is too small": "词表只有 {count} 个 token，太小",
    "the GPU has compute capability {major}.{minor}, they need 8.0": (
        "GPU 的计算能力为 {major}.{minor}，它们需要 8.0"
    ),
    "{count} heads share keys and values, they are made for {most}": (
        "{count} 个头共用键和值，它们最多适用于 {most} 个"
    ),
    "heads of {size} or a width of {width} are not what they are made for": (
        "它们不适用于大小为 {size} 的头或 {width} 的宽度"
    ),
    "transformers reads other models: --backend huggingface": (
        "其他模型由 transformers 读取：--backend huggingface"
    ),
    "transformers reads other models: start qwenchat with --backend huggingface": (
        "其他模型由 transformers 读取：请以 --backend huggingface 启动 qwenchat"
    ),
    "triton is not installed": "未安装 triton",
    "triton cannot be used: {error}": "triton 无法使用：{error}",
    "triton needs a C compiler, and there is no gcc or clang": "triton 需要 C 编译器，但没有 gcc 或 clang",
    "triton compiles against Python's headers, and there is no {header}": (
        "triton 编译时需要 Python 头文件，但没有 {header}"
    ),
    "the two halves of its MLP have their inputs in different orders": "其 MLP 两半的输入顺序不同",
    "the GPU has {count} multiprocessors, they need {wanted}": "该 GPU 有 {count} 个多处理器，需 {wanted} 个",
    "it is computed in {dtype}": "其计算精度为 {dtype}",
    "it norms queries and keys, and the KV cache is of 8 bits": "其对查询与键作归一化，而 KV 缓存为 8 位",
    "its shapes are not those that the kernel is made for": "其形状不在该内核支持之列",
    "its layers are not all of 4, 8 or 16 bits": "其各层并非全为 4、8 或 16 位",
    "its groups are not of {group} inputs": "其分组不是每组 {group} 个输入",
    "it has other biases than a Qwen's": "其偏置与 Qwen 的不同",
    "its output projection is in act-order": "其输出投影采用 act-order",
    "NVRTC cannot be used: {error}": "NVRTC 无法使用：{error}",
    "waiting for another qwenchat": "正在等待另一个 qwenchat",
    "the built-in model is made again: this version keeps it in another form": (
        "正在重新制作内置模型：这个版本以另一种形式保存它"
    ),
    "the built-in model is used as it was before: {reason}": "内置模型按原先的形式使用：{reason}",
    "downloading the built-in model": "正在下载内置模型",
    "verifying": "正在校验",
    "unpacking": "正在解压",
    "converting": "正在转换",
    # --- the command line: the models -------------------------------------------------------------
    "the built-in model is called demo": "内置模型名为 demo",
    "{model} is in {folder}": "{model} 位于 {folder}",
    "{model} is not downloaded": "尚未下载 {model}",
    "model": "模型",
    "disk": "磁盘",
    "context": "上下文",
    "memory, {device}": "内存（{device}）",
    "published chats": "已发布的对话模型",
    "fits, {device}": "放得下（{device}）",
    "formats": "格式",
    "qwenchat models pull qwen2.5-7b-int4 downloads one in one of its formats": (
        "可用 qwenchat models pull qwen2.5-7b-int4 下载某个模型的某种格式"
    ),
    "folder": "文件夹",
    "source": "来源",
    "revision": "版本",
    "model type": "模型类型",
    "format": "格式",
    "quantised": "量化",
    "licence": "许可证",
    "built in": "内置",
    "a folder": "文件夹中",
    "the Hub's cache": "Hub 缓存",
    "ModelScope's cache": "ModelScope 缓存",
    "its pull is not complete": "下载尚未完成",
    "there are no models on this machine yet": "本机还没有模型",
    "{model} is not fully downloaded": "{model} 尚未完整下载",
    "qwenchat models pull {name} downloads it": "可用 qwenchat models pull {name} 下载",
    "{model} is here as {names}": "本机上的 {model} 有 {names}",
    "give one of these names": "请给出其中一个名称",
    "download it outside the chat: qwenchat models pull "
    "{name}": "请在对话之外下载：qwenchat models pull {name}",
    "{name} is not the name of a model": "{name} 不是模型名称",
    "--revision is for a whole model": "--revision 只用于整个模型",
    "leave it out, or the kind of {name}": "请去掉它，或去掉 {name} 中的格式",
    "give a name like org/model, or demo": "请给出 org/model 形式的名称，或 demo",
    "unknown source {name}": "没有名为 {name} 的来源",
    "the built-in model has no revisions and no other source": "内置模型没有版本，也没有其他来源",
    "it comes from the package index, or with --from out of a file": "它来自软件包索引，或由 --from 指定文件",
    "--from is for the built-in model": "--from 只用于内置模型",
    "fetching {name}": "正在下载 {name}",
    "verifying {name}": "正在校验 {name}",
    "{done} of {total}": "已完成 {done}/{total}",
    "looking for {name}": "正在查找 {name}",
    "{part}, {left} left, {speed}/s": "{part}，还需 {left}，{speed}/秒",
    "{hours} h": "{hours} 小时",
    "{reason}; trying ModelScope": "{reason}；改用 ModelScope",
    "{reason}; what is here is complete": "{reason}；本机已有完整的模型",
    "{host} does not answer as it should": "{host} 的应答不正确",
    "look at MODELSCOPE_ENDPOINT and your proxy": "请检查 MODELSCOPE_ENDPOINT 和代理设置",
    "interrupted; what has been fetched stays": "已中断；已下载的部分会保留",
    "it is missing": "缺失",
    "it is not a file": "不是文件",
    "nothing is known to check it against": "没有可供核对的信息",
    "it cannot be read: {reason}": "无法读取：{reason}",
    "it is cut short": "文件不完整",
    "its header is too long": "文件头过长",
    "its header is not a table of tensors": "文件头不是张量表",
    "its tensor {name} has an impossible description": "对张量 {name} 的描述无效",
    "it holds more than {n} values": "所含的值超过 {n} 个",
    "it contains a lone surrogate": "含有不完整的字符",
    "it has {size} bytes, expected {expected}": "大小为 {size} 字节，应为 {expected} 字节",
    "its content is not what was published": "内容与发布的不一致",
    "{model}: {finding}": "{model}：{finding}",
    "all {count} files match what was pulled": "全部 {count} 个文件与下载时一致",
    "all {count} files match their hashes": "全部 {count} 个文件与其哈希一致",
    "all {count} files match the Hub's": "全部 {count} 个文件与 Hub 上的一致",
    "all {count} files have their sizes; no hash is known": "全部 {count} 个文件大小正确；哈希未知",
    "no file is missing; no hash is known": "没有缺失文件；哈希未知",
    "{model}: bad or missing: {files}": "{model}：损坏或缺失：{files}",
    "qwenchat models pull {name} repairs it": ("可用 qwenchat models pull {name} 重新下载损坏的文件"),
    "qwenchat models remove demo, then pull demo, makes it anew": (
        "先运行 qwenchat models remove demo，再 pull demo，即可重新生成"
    ),
    "put good files in their place": "请换成完好的文件",
    "{path} is a single file, and nothing is known to check it "
    "against": "{path} 是单个文件，没有可供核对的信息",
    "remove {name}? It frees {size}": "删除 {name}？将释放 {size}",
    "--yes removes without asking": "--yes 可直接删除，不再询问",
    "nothing was removed": "没有删除任何内容",
    "nothing was prepared of {name}": "{name} 没有预处理过",
    "the built-in model keeps its weights so by itself": "内置模型自己会保存这种形式的权重",
    "takes up to {size} on disk, {free} free": "最多占用磁盘 {size}，可用 {free}",
    "{name} is prepared: {size} in {folder}": "{name} 已预处理：{size}，位于 {folder}",
    "{name} was prepared already: {size}": "{name} 早已预处理：{size}",
    "{source}; prepared: {size}": "{source}；已预处理：{size}",
    "prepared": "已预处理",
    "{name} has nothing to prepare: that is for folders whose layers are all in GPTQ's codes": (
        "{name} 没有可预处理的内容：只用于各层均为 GPTQ 编码的文件夹"
    ),
    "there are no kernels to prepare for: {reason}": "没有可用的计算核，无法预处理：{reason}",
    "{folder} has {free} free, up to {needed} are needed": "{folder} 可用 {free}，最多需要 {needed}",
    "free some, or let QWENCHAT_HOME name a larger disk": "请腾出空间，或用 QWENCHAT_HOME 指定更大的磁盘",
    "{name}: what was prepared of it is damaged or of another state; it is prepared anew": (
        "{name}：预处理过的权重已损坏或与检查点不符，现重新预处理"
    ),
    "freed {size}": "已释放 {size}",
    "cannot put the built-in model into {folder}: {reason}": "无法把内置模型放入 {folder}：{reason}",
    "it needs {needed} MB of free disk there; QWENCHAT_HOME names another place": (
        "那里需要 {needed} MB 可用磁盘空间；可用 QWENCHAT_HOME 指定其他位置"
    ),
    "cannot remove the built-in model from {folder}: {reason}": "无法从 {folder} 删除内置模型：{reason}",
    "not enough disk: the built-in model needs {needed} MB, {folder} has {free} MB free": (
        "磁盘空间不足：内置模型需要 {needed} MB，{folder} 可用 {free} MB"
    ),
    "free some, or name another place with QWENCHAT_HOME": "请腾出空间，或用 QWENCHAT_HOME 指定其他位置",
    "get {file} from a package index by other means and give it as a file: {command}": (
        "请用其他方式从软件包索引取得 {file}，再以文件形式给出：{command}"
    ),
    "cannot fetch {file} with pip: {reason}": "无法用 pip 下载 {file}：{reason}",
    "this Python environment has no pip": "此 Python 环境没有 pip",
    "pip did not bring {file}": "pip 没有取得 {file}",
    "the index has no {package}": "索引中没有 {package}",
    "the package index cannot be reached": "无法访问软件包索引",
    "it ended with status {status}": "它以状态 {status} 结束",
    "{path} is not {file}: {reason}": "{path} 不是 {file}：{reason}",
    "its sha256 is {digest}, expected {expected}": "其 sha256 为 {digest}，应为 {expected}",
    "{path} cannot be removed: {reason}": "无法删除 {path}：{reason}",
    "{name} is not in a place that this command may change": "{name} 不在此命令可以更改的位置",
    "give a model's name; a folder of yours is yours to remove": "请给出模型名称；您自己的文件夹请自行删除",
    "there is no revision {revision} of {name} in the Hub's cache": "Hub 缓存中没有 {name} 的版本 {revision}",
    "HF_HUB_OFFLINE is set": "已设置 HF_HUB_OFFLINE",
    "HF_HUB_OFFLINE is set, so nothing is fetched": "已设置 HF_HUB_OFFLINE，因此不下载任何内容",
    "unset it, or give a folder": "请取消该设置，或给出文件夹",
    "{host} cannot be reached: {reason}": "无法连接 {host}：{reason}",
    "HF_ENDPOINT names a mirror, and --source modelscope another source": (
        "可用 HF_ENDPOINT 指定镜像，或用 --source modelscope 换一个来源"
    ),
    "unknown host": "域名无法解析",
    "the connection is refused": "连接被拒绝",
    "the connection was lost": "连接中断",
    "the proxy does not answer": "代理没有响应",
    "its certificate is not accepted": "证书不被接受",
    "there was no answer in time": "没有及时响应",
    "there is no network": "没有网络",
    "it answers with error {status}": "返回错误 {status}",
    "{host} answers with error {status}": "{host} 返回错误 {status}",
    "try again later; what has been fetched stays": "请稍后再试；已下载的部分会保留",
    "{host} does not answer as the Hub does": "{host} 的响应不像 Hub",
    "look at HF_ENDPOINT and your proxy": "请检查 HF_ENDPOINT 和代理设置",
    "the token cannot be sent": "令牌无法发送",
    "look at HF_TOKEN": "请检查 HF_TOKEN",
    "{path} is a link to elsewhere": "{path} 是指向别处的链接",
    "what is kept elsewhere is yours to remove": "放在别处的内容请自行删除",
    "another qwenchat is pulling {name}": "另一个 qwenchat 正在下载 {name}",
    "try again when it has ended": "请等它结束后再试",
    "{host} has no model {name}, or does not show it": "{host} 上没有模型 {name}，或不对外公开",
    "{host} has no model {name}, or lacks a file of it": "{host} 上没有模型 {name}，或缺少其中的文件",
    "look at the spelling; for a private one set HF_TOKEN": "请检查拼写；私有模型请设置 HF_TOKEN",
    "look at the spelling; for a private one set MODELSCOPE_API_TOKEN": (
        "请检查拼写；私有模型请设置 MODELSCOPE_API_TOKEN"
    ),
    "{name} has no revision {revision}": "{name} 没有版本 {revision}",
    "--revision takes a branch, a tag or a commit; without it, main is fetched": (
        "--revision 可为分支、标签或提交；不给出时下载 main"
    ),
    "{host} gives {name} only to those who have signed in": "{host} 仅向已登录的用户提供 {name}",
    "{host} does not give {name} to the owner of this token": "{host} 不向此令牌的所有者提供 {name}",
    "accept its terms on {page}, then set HF_TOKEN": "请在 {page} 接受条款，然后设置 HF_TOKEN",
    "ask for access on {page}, or set another HF_TOKEN": "请在 {page} 申请访问权限，或换一个 HF_TOKEN",
    "set MODELSCOPE_API_TOKEN": "请设置 MODELSCOPE_API_TOKEN",
    "{host} does not give {name}: {reason}": "{host} 未提供 {name}：{reason}",
    "{host} has had too many requests from here": "向 {host} 发出的请求过多",
    "try again in {seconds} s; a token in HF_TOKEN allows more": (
        "请在 {seconds} 秒后再试；设置 HF_TOKEN 可放宽限制"
    ),
    "try again in some minutes; a token in HF_TOKEN allows more": "请过几分钟再试；设置 HF_TOKEN 可放宽限制",
    "try again in some minutes": "请过几分钟再试",
    "the sizes of what is here and there do not agree": "本地与服务器上的文件大小不符",
    "the file that came has not the size that was announced": "收到的文件与声明的大小不符",
    "{file} did not verify: {reason}": "{file} 校验失败：{reason}",
    "it came twice like that; try again later, or from another source": (
        "两次下载结果都是如此；请稍后再试，或换一个来源"
    ),
    "no hash of {file} is told, so it could not be verified": "没有提供 {file} 的哈希，无法校验",
    "the mirror that HF_ENDPOINT names leaves it out": "HF_ENDPOINT 指定的镜像没有提供",
    "a file of {name} is too large for the Hub's client to fetch in one piece": (
        "{name} 中有文件过大，Hub 的客户端无法一次下载"
    ),
    "look for a repository with smaller files": "请寻找文件较小的仓库",
    "{name} lacks {files}": "{name} 缺少 {files}",
    "it is not a loadable checkpoint": "它不是可以加载的检查点",
    "{name} has {choices}": "{name} 有 {choices}",
    "{name} has no {kind}, but {choices}": "{name} 没有 {kind}，有 {choices}",
    "qwenchat models pull {name} fetches one": "可用 qwenchat models pull {name} 下载其中一种",
    "{name} has no GGUF files": "{name} 没有 GGUF 文件",
    "leave out :{kind}": "请去掉 :{kind}",
    "{name} has its weights only as pickles, which can run code while they are read": (
        "{name} 只有 pickle 格式的权重，读取时可能执行代码"
    ),
    "look for a repository of the same model with safetensors": "请寻找同一模型的 safetensors 版本",
    "{name} has no weights as safetensors": "{name} 没有 safetensors 格式的权重",
    "look for a repository with safetensors": "请寻找带有 safetensors 的仓库",
    "not enough disk: {name} takes {missing} more, {folder} has {free} free, of which {spare} stay free": (
        "磁盘空间不足：{name} 还需 {missing}，{folder} 可用 {free}，其中 {spare} 须留空"
    ),
    "free some, or name another place with HF_HOME, or for ModelScope with MODELSCOPE_CACHE": (
        "请腾出空间，或用 HF_HOME 指定其他位置，ModelScope 则用 MODELSCOPE_CACHE"
    ),
    "the disk of {folder} is full": "{folder} 所在的磁盘已满",
    "free some, or name another place with HF_HOME; what has been fetched stays": (
        "请腾出空间，或用 HF_HOME 指定其他位置；已下载的部分会保留"
    ),
    "{folder} cannot be written: {reason}": "无法写入 {folder}：{reason}",
    "HF_HOME names another place": "可用 HF_HOME 指定其他位置",
    "MODELSCOPE_CACHE names another place; what has been fetched stays": (
        "可用 MODELSCOPE_CACHE 指定其他位置；已下载的部分会保留"
    ),
    "MODELSCOPE_ENDPOINT names another address; what has been fetched stays": (
        "可用 MODELSCOPE_ENDPOINT 指定其他地址；已下载的部分会保留"
    ),
    "ModelScope's client is not installed": "未安装 ModelScope 的客户端",
    "pip install 'modelscope-hub<0.6' installs it": "可用 pip install 'modelscope-hub<0.6' 安装",
    "HF_ENDPOINT names a mirror; after pip install 'modelscope-hub<0.6' ModelScope is tried too": (
        "HF_ENDPOINT 可指定镜像；执行 pip install 'modelscope-hub<0.6' 后也会尝试 ModelScope"
    ),
    "it is cut short or damaged: {reason}": "文件不完整或已损坏：{reason}",
    **HELP,
    # --- the command line: one answer -------------------------------------------------------------
    "there is no question": "没有问题",
    "the reply ended without an end": "回复没有正常结束",
    'use qwenchat ask "...", or pipe a text into qwenchat': (
        '请使用 qwenchat ask "..."，或通过管道向 qwenchat 传入文本'
    ),
    "stdin holds more than {limit} MiB": "标准输入超过 {limit} MiB",
    "no context is that long; send a part of it": "没有这么长的上下文，请只发送其中一部分",
    "stdin": "标准输入",
    "--json, --stream-json and --code cannot be combined": "--json、--stream-json 和 --code 不能同时使用",
    "choose one": "请只选其一",
    "the current folder was deleted": "当前所在的文件夹已被删除",
    "go to another one": "请切换到其他文件夹",
    "this model always thinks before it answers; --think-tokens N limits that": (
        "该模型总是先思考再回答；--think-tokens N 可限制其长度"
    ),
    "this model does not think before it answers": "该模型不会在回答前思考",
    "this model always thinks before it answers": "该模型总是先思考再回答",
    "/set think_tokens N limits how long it does": "/set think_tokens N 可限制其长度",
    "/think takes on, off, default or show": "/think 的参数为 on、off、default 或 show",
    "whether the model thinks is known once it is loaded": "模型加载后才知道它是否先思考",
    "the model answers without thinking; /think on changes that": "模型不思考直接回答；/think on 可改变",
    "the model thinks before it answers": "模型先思考再回答",
    "the model thinks before it answers, for at most {count} tokens": (
        "模型先思考再回答，思考至多 {count} 个 token"
    ),
    "/think off turns that off": "/think off 可关闭",
    "nothing was thought in this chat": "本对话中没有思考内容",
    "thinking ...": "思考中…",
    "thinking, {seconds} s": "思考中，{seconds} 秒",
    "thought for {seconds} s; /think show prints it": "思考了 {seconds} 秒；/think show 可显示内容",
    "thought before: {count} characters": "此前的思考：{count} 个字符",
    "Show whether the model thinks before it answers, or let it, or not; show prints what it thought last.": (
        "显示或设定模型是否先思考再回答；show 显示最近一次的思考。"
    ),
    "the reply was cut after {count} tokens by --max-new-tokens": (
        "回复达到 --max-new-tokens 的上限，在 {count} 个 token 后截断"
    ),
    "the reply was cut after {count} tokens by the context window": (
        "上下文窗口已满，回复在 {count} 个 token 后截断"
    ),
    "interrupted; the reply is incomplete": "已中断；回复不完整",
    "{model}: loaded in {seconds} s; {statistics}": "{model}：加载用时 {seconds} 秒；{statistics}",
    # --- the command line: beginning a chat -------------------------------------------------------
    "--json, --stream-json, --code and --complete are for one answer": (
        "--json、--stream-json、--code 和 --complete 只用于单次回答"
    ),
    "--complete goes on with a text alone": "--complete 只续写一段文本",
    "leave out --session, --continue and --system": "请去掉 --session、--continue 和 --system",
    "completing the text; this is no chat, and is not saved": "按原样续写文本；这不是对话，也不保存",
    "use qwenchat ask, or pipe a text": "请使用 qwenchat ask，或通过管道传入文本",
    "a chat needs a terminal": "对话需要在终端中进行",
    "qwenchat ask answers into a file or a pipe": "qwenchat ask 可将回答写入文件或管道",
    # --- the command line: sessions ---------------------------------------------------------------
    "{id} is called {title!r} now": "{id} 已重命名为 {title!r}",
    "delete which sessions?": "没有明确要删除哪些会话",
    "give their names, or --older-than DAYS": "请给出会话名称，或使用 --older-than DAYS",
    "and {n} more": "以及另外 {n} 个",
    "delete these {count} sessions?": "删除这 {count} 个会话？",
    "there is no terminal to ask": "没有终端可供询问",
    "--yes deletes without asking": "--yes 可直接删除，不再询问",
    "nothing was deleted": "没有删除任何会话",
    "deleted {count} sessions": "已删除 {count} 个会话",
    "{count} sessions could not be deleted: {first}": "有 {count} 个会话无法删除：{first}",
    "{path} does not say its format": "从 {path} 看不出格式",
    "--format takes {names}": "--format 可选：{names}",
    # --- the command line: the server -------------------------------------------------------------
    "--idle is {value}, expected a time such as 90s, 15m or 2h": (
        "--idle 的值是 {value}，应为时间，如 90s、15m 或 2h"
    ),
    "a server in the background needs Unix sockets, which this system has not": (
        "后台服务器需要 Unix 套接字，而此系统没有"
    ),
    "ended: {server}": "已结束：{server}",
    "no server is running": "没有正在运行的服务器",
    "qwenchat serve --background starts one": "qwenchat serve --background 会启动一个",
    "serving {model} at {address} in the background, process {pid}; qwenchat serve --stop ends it": (
        "正在后台于 {address} 提供 {model}，进程 {pid}；qwenchat serve --stop 结束它"
    ),
    "the server ended: {reason}": "服务器已结束：{reason}",
    "{path} has all that it said": "它的全部输出在 {path}",
    "the server has not ended yet": "服务器尚未结束",
    "what it is at may take longer; look again later": "它正在做的事可能还要一些时间；请稍后再看",
    "there is no door for qwenchat ask: {reason}": "qwenchat ask 没有本地入口：{reason}",
    "{model} at {address}, process {pid}, version {version}, running for {time}": (
        "{model}，{address}，进程 {pid}，版本 {version}，已运行 {time}"
    ),
    "{path} can be read by others, expected a folder of your own": "{path} 可被他人读取，应为您自己的文件夹",
    "{path} is too long for a socket": "{path} 对套接字来说太长",
    "let XDG_RUNTIME_DIR name a folder with a shorter path": "请让 XDG_RUNTIME_DIR 指向路径较短的文件夹",
    "the server that had the model is gone": "提供该模型的服务器已不在",
    "ask again: then the model is loaded here": "请再问一次：届时会在这里加载模型",
    "/model NAME loads it here": "/model 名称 会在这里加载它",
    "Let a running qwenchat serve answer, if it has the very model that would be loaded.": (
        "如果正在运行的 qwenchat serve 恰好有将要加载的模型，就由它回答。"
    ),
    "serving {model} at {address}; Ctrl-C ends it": "正在 {address} 提供 {model}；按 Ctrl-C 结束",
    "the port {port} of {host} is in use": "{host} 的端口 {port} 已被占用",
    "{model} is served elsewhere already": "{model} 已由其他服务器提供",
    "--port chooses another": "--port 可选择其他端口",
    "{host} is no address of this machine": "{host} 不是本机的地址",
    "at {host} other machines reach the server, so it needs a key": (
        "在 {host} 上其他机器可以访问服务器，因此需要密钥"
    ),
    "--key-file FILE, or {variable}": "使用 --key-file FILE 或 {variable}",
    "{path} holds no key, expected one word": "{path} 中没有密钥，应为一个词",
    "--cors is {origin}, expected the origin of a page, such as https://example.org": (
        "--cors 为 {origin}，应为网页的来源，例如 https://example.org"
    ),
    # --- the command line: the benchmark --------------------------------------------------------------
    "--model and --random-weights cannot be combined": "--model 和 --random-weights 不能同时使用",
    "--formats is for --random-weights": "--formats 只用于 --random-weights",
    "a checkpoint has a format of its own": "检查点的格式是固定的",
    "there is no folder {folder}": "没有文件夹 {folder}",
    "--peer needs a checkpoint": "--peer 需要一个检查点",
    "-m demo is one": "例如 -m demo",
    "{option} is {text}, expected numbers from {least} with commas between them": (
        "{option} 为 {text}，应为以逗号分隔、不小于 {least} 的整数"
    ),
    "--kv-cache is {kind}, expected auto or int8": "--kv-cache 为 {kind}，应为 auto 或 int8",
    "a reply of fewer than {least} tokens cannot be timed": "少于 {least} 个 token 的回复无法计时",
    "no published shapes are known of {name}": "不知道 {name} 的结构",
    "known are {names}, each also with -int8 or -int4 behind it": (
        "已知的有 {names}，后面都可加 -int8 或 -int4"
    ),
    "unknown format {name}": "没有格式 {name}",
    "known are {names}": "已知的有 {names}",
    "not enough disk: the checkpoint takes {size} GB, {folder} has {free} GB free": (
        "磁盘空间不足：检查点需要 {size} GB，{folder} 可用 {free} GB"
    ),
    "--folder names another place": "可用 --folder 指定其他位置",
    "what {device} can do at best in {dtype}": "{device} 以 {dtype} 计算的上限",
    "{processor}, {count} cores": "{processor}（{count} 核）",
    "ceilings of the machine": "本机上限",
    "reading memory": "读内存",
    "copying memory": "复制内存",
    "multiplying in {dtype}": "{dtype} 矩阵乘法",
    "{format} (card, A100)": "{format}（模型卡，A100）",
    "{name}, {dtype}": "{name}，{dtype}",
    "{count} new tokens from a context of one": "从 1 个 token 起新生成 {count} 个 token",
    "{share} of the ceiling": "上限的 {share}",
    "replies of up to {count} tokens": "最长 {count} 个 token 的回复",
    "the wait for the first token": "首个 token 的等待时间",
    "the wait for a whole reply": "整个回复的等待时间",
    "{count} at once": "同时 {count} 个",
    "{speed} tokens/s each": "每个 {speed} token/秒",
    "{failed} of {count} failed": "{count} 个中 {failed} 个失败",
    "warming up": "预热中",
    "the server ends replies by itself: they may be shorter": "服务器会自行结束回复：可能较短",
    "{name} is no URL of a server, and no remote of the config file": (
        "{name} 既不是服务器的 URL，也不是配置文件里的远程模型"
    ),
    "--remote takes --concurrency, --tokens and --key-file alone": (
        "--remote 只能与 --concurrency、--tokens、--key-file 一起使用"
    ),
    "leave the others out": "请去掉其他选项",
    "--concurrency and --key-file are for --remote": "--concurrency 和 --key-file 用于 --remote",
    "reads {rate} GB/s": "读取 {rate} GB/s",
    "peak memory, a prompt of {count} tokens": "内存峰值，{count} 个 token 的输入",
    "peak memory, {count} new tokens": "内存峰值，新生成 {count} 个 token",
    "{size} GiB reserved": "已预留 {size} GiB",
    "first token after a prompt of {count} tokens": "输入 {count} 个 token 之后的首个 token",
    "{time} ms": "{time} 毫秒",
    "next turn: {new} new tokens after {old}": "下一轮：{old} 个 token 之后新增 {new} 个",
    "{count} reused": "复用 {count} 个",
    "from the start of a process to its first token": "从进程启动到首个 token",
    "{seconds} s the first time": "首次 {seconds} 秒",
    "{name}: speed by the context": "{name}：各上下文长度下的速度",
    "a token at a context of {count}": "上下文为 {count} 时的一个 token",
    "tokens/s": "token/秒",
    "of the ceiling": "占上限",
    "{name}: kernels at a context of {count}": "{name}：上下文为 {count} 时的计算核",
    "kernel": "计算核",
    "launches": "启动次数",
    "µs each": "每次微秒",
    "µs a token": "每 token 微秒",
    "sampler alone, {count} logits": "仅采样器，{count} 个 logit",
    "flat logits": "平坦的 logit",
    "peaked logits": "有峰值的 logit",
    "{time} µs a token": "每 token {time} 微秒",
    "Decoding speed against the context": "各上下文长度下的解码速度",
    "context, tokens": "上下文，token",
    "{first} to {last} tokens/s": "{first} 至 {last} token/秒",
    "measured": "实测",
    "ceiling: memory bandwidth / bytes a token reads": "上限：内存带宽 / 每个 token 读取的字节数",
    "our kernels are not used: {reason}": "未使用自带的计算核：{reason}",
    "{name}: from the start of a process to its first token, twice": "{name}：从进程启动到首个 token，两次",
    "{name}: loading": "{name}：正在加载",
    "{name}: how fast it is, to choose lengths": "{name}：正在估测速度，以选定长度",
    "{name}: preparing kernels": "{name}：正在准备计算核",
    "{name}: first token after {tokens}": "{name}：{tokens} 个 token 之后的首个 token",
    "{name}: next turn, {new} new tokens after {old}": "{name}：下一轮，{old} 个 token 之后新增 {new} 个",
    "{name}: {tokens} new tokens": "{name}：新生成 {tokens} 个 token",
    "{name}: a token at a context of {count}": "{name}：上下文为 {count} 时的一个 token",
    "{name}: kernels": "{name}：计算核",
    "qwenchat ask did not answer: {reason}": "qwenchat ask 没有回答：{reason}",
    "transformers cannot be timed beside {model}": "无法用 transformers 对 {model} 计时",
    # --- the command line: evaluating -----------------------------------------------------------------
    "--concurrency is {count}, expected 1 or more": "--concurrency 为 {count}，应为 1 或更大",
    "--data is for one task": "--data 只用于一项评测",
    "--few-shot is for gsm8k": "--few-shot 只用于 gsm8k",
    "--fresh begins anew; --out FOLDER keeps this and writes elsewhere": (
        "--fresh 从头开始；--out FOLDER 保留它并写到别处"
    ),
    "--limit is {count}, expected 1 or more": "--limit 为 {count}，应为 1 或更大",
    "--out FOLDER writes elsewhere": "--out FOLDER 写到别处",
    "95 % interval": "95 % 区间",
    "accuracy": "准确率",
    "another qwenchat is writing {path}": "另一个 qwenchat 正在写入 {path}",
    "average": "平均",
    "card: {model}": "模型卡：{model}",
    "data": "数据",
    "difference": "差值",
    "downloading the data": "正在下载数据",
    "downloading {package}": "正在下载 {package}",
    "get {file} of {repository} by other means and name it: --data FILE": (
        "用其他方式取得 {repository} 的 {file}，再用 --data FILE 指定"
    ),
    "going on after {count} items of {path}": "从 {path} 的 {count} 题之后继续",
    "inside": "在区间内",
    "it has no column {column}": "没有 {column} 列",
    "it has {count} columns, expected {expected}": "有 {count} 列，应为 {expected} 列",
    "it is no JSON object": "不是 JSON 对象",
    "it is not valid CSV: {reason}": "不是有效的 CSV：{reason}",
    "it is not valid JSON: {reason}": "不是有效的 JSON：{reason}",
    "its prompt does not define {name}": "题目中没有定义 {name}",
    "leave out --concurrency": "请去掉 --concurrency",
    "no task is named": "没有指定评测",
    "expected are {known}": "可用的有 {known}",
    "name that task alone": "请只写这一项",
    "no": "否（区间外）",
    "pip install 'qwenchat[eval]'": "请运行：pip install 'qwenchat[eval]'",
    "record": "记录",
    "sample": "抽样",
    "the answer is {value}, expected A, B, C or D": "答案为 {value}，应为 A、B、C 或 D",
    "the subject {name} is none of this benchmark's": "科目 {name} 不属于这项评测",
    "there is no number in the answer": "答案中没有数字",
    "there is no task {name}, expected {known}": "没有评测 {name}，应为 {known}",
    "this needs packages that are not installed: {names}": "需要尚未安装的包：{names}",
    "time": "用时",
    "too long": "过长",
    "versions": "版本",
    "yes": "是（区间内）",
    "{a}, revision {revision}": "{a}，修订版 {revision}",
    "{a}; the published set has {count}": "{a}；公布的数据有 {count} 题",
    "{column} are not {count}": "{column} 不是 {count} 项",
    "{column} is no text": "{column} 不是文本",
    "{count} items, drawn with seed {seed}": "{count} 题，按种子 {seed} 抽取",
    "{count} prompts did not fit the context, and count as wrong": "{count} 题超出上下文，按错误计",
    "{model} answers one question at a time": "{model} 一次只能回答一题",
    "{model}, for comparison": "{model}，供对照",
    "{name} {was}, now {wanted}": "{name} 原为 {was}，现为 {wanted}",
    "{origin}, {count} items, sha256 {digest}": "{origin}，{count} 题，sha256 {digest}",
    "{path} has no data in it: {kinds}": "{path} 中没有数据：{kinds}",
    "{path} is empty": "{path} 为空",
    "{path} is no data, expected {names}": "{path} 不是数据文件，应为 {names}",
    "{path} is no record of an evaluation": "{path} 不是评测记录",
    "{path} is no such archive: {reason}": "{path} 不是有效的归档文件：{reason}",
    "{path} is of another run: {names}": "{path} 属于另一次评测：{names}",
    "{path}, line {n}: it is damaged": "{path} 第 {n} 行已损坏",
    "{path}, line {n}: {reason}": "{path} 第 {n} 行：{reason}",
    "{stage}, {time} left": "{stage}，还需 {time}",
    "{time}; {prompt} prompt tokens, {reused} of them from the cache, {completion} new ones": (
        "{time}；输入 {prompt} 个 token，其中 {reused} 取自缓存，生成 {completion} 个"
    ),
    "{title}, {done} of {count}": "{title}，已完成 {done}/{count} 题",
    "{title}: {count} items, the published set has {expected}": (
        "{title}：{count} 题，公布的数据有 {expected} 题"
    ),
    "--no-constrain is for bfcl": "--no-constrain 只用于 bfcl",
    "arithmetic, code runs": "算术，代码可运行",
    "arithmetic, right": "算术，答案正确",
    "chat mode": "对话模式",
    "code": "代码",
    "docs/eval.md tells where; --data takes it, or GSM8K's test.jsonl for the arithmetic alone": (
        "出处见 docs/eval.md；用 --data 指定，或只用 GSM8K 的 test.jsonl 测算术"
    ),
    "docs/eval.md tells where; give it as a folder: --data FOLDER; bfcl is another such task": (
        "出处见 docs/eval.md；用 --data FOLDER 指定其文件夹；bfcl 是另一项这类评测"
    ),
    "false positives": "误报",
    "general, code runs": "一般问题，代码可运行",
    "irrelevance": "无关函数",
    "pictures, code runs": "绘图，代码可运行",
    "run mode": "运行模式",
    "simple": "简单调用",
    "the set of {title} cannot be fetched: one vendor alone has it": (
        "{title} 的数据无法下载：只有一家厂商提供"
    ),
    "tool input, Rouge-L": "工具输入，Rouge-L",
    "tool selection": "工具选择",
    "tools used": "工具使用",
    "{mode}: {part}": "{mode}：{part}",
    "--formats and --window are for perplexity": "--formats 和 --window 只用于 perplexity",
    "name that alone": "请只写它",
    "--limit takes fewer windows": "--limit 可减少窗口数",
    "--window is {count}, expected {least} or more": "--window 为 {count}，应为 {least} 或更大",
    "RMS change of probability": "概率变化的均方根",
    "better": "更好",
    "worse": "更差",
    "items": "题数",
    "computed by": "计算方式",
    "correlation of losses": "损失的相关性",
    "maximum": "最大",
    "minimum": "最小",
    "median": "中位数",
    "mean KL divergence": "平均 KL 散度",
    "mean change of probability": "概率的平均变化",
    "no difference that luck does not explain": "差异可由偶然解释",
    "not enough disk: the predictions take {needed} GB, {folder} has {free} GB free": (
        "磁盘空间不足：预测需要 {needed} GB，{folder} 只剩 {free} GB"
    ),
    "perplexity": "困惑度",
    "ratio of perplexities": "困惑度之比",
    "same likeliest token": "最可能的 token 相同",
    "with its interval of 95 %; the mark is the card's: {model}": "附 95 % 区间；标记为模型卡的数值：{model}",
    "{a} and {b} have no task in common that was asked of both with the same data": (
        "{a} 与 {b} 没有数据相同的共同评测"
    ),
    "{model} gives no logits: it runs elsewhere": "{model} 不提供 logits：它在别处运行",
    "{model} has another vocabulary than {reference}": "{model} 的词表与 {reference} 不同",
    "{model}, measured": "{model} 的实测结果",
    "{name} is better": "{name} 更好",
    "{path} is no report of qwenchat eval --json": "{path} 不是 qwenchat eval --json 的报告",
    "{path} is too short: there is next to nothing in it": "{path} 太短：几乎没有内容",
    "{title}, {score}": "{title}，{score}",
    "{tokens} tokens of {path}, scored in windows of {window}": (
        "{path} 的 {tokens} 个 token，窗口为 {window}"
    ),
    # --- the command line: quantising -----------------------------------------------------------------
    "--bits is {bits}, expected 4 or 8": "--bits 为 {bits}，应为 4 或 8",
    "--group-size {size} does not divide this model's matrices of {widths} inputs": (
        "--group-size {size} 不能整除此模型矩阵的输入数 {widths}"
    ),
    "what would: {sizes}, or -1 for one scale a row": "可用：{sizes}，或 -1（每行一个缩放系数）",
    "matrices of {widths} inputs cannot be packed": "输入数为 {widths} 的矩阵无法打包",
    "GPTQ takes multiples of 32": "GPTQ 要求 32 的倍数",
    "{path} is not a folder": "{path} 不是文件夹",
    "a float checkpoint is a folder with config.json and safetensors": (
        "浮点检查点是含有 config.json 和 safetensors 的文件夹"
    ),
    "the built-in model is quantised already": "内置模型已经量化",
    "give a float checkpoint as SOURCE": "请把浮点检查点作为 SOURCE 给出",
    "{folder} is quantised already ({bits} bits)": "{folder} 已经量化（{bits} 位）",
    "take the float checkpoint that it was made from": "请使用量化之前的浮点检查点",
    "{folder} cannot be read: {reason}": "无法读取 {folder}：{reason}",
    "{folder}: the vocabulary has the token {id}, the model only {size}": (
        "{folder}：词表含有 token {id}，而模型只有 {size} 个"
    ),
    "the .tiktoken file belongs to another checkpoint": "该 .tiktoken 文件属于另一个检查点",
    "{dest} is inside the source": "{dest} 位于来源文件夹之内",
    "give a destination outside of {source}": "请给出 {source} 之外的目标",
    "{path} has {tokens} tokens, quantising needs at least {least}": (
        "{path} 有 {tokens} 个 token，量化至少需要 {least} 个"
    ),
    "give more and more varied text, or leave out --calibration for the set that ships": (
        "请提供更多、更多样的文本，或去掉 --calibration 以使用自带的文本"
    ),
    "{path} is larger than {megabytes} MB": "{path} 超过 {megabytes} MB",
    "some hundred chats or pages are enough": "几百段对话或几百页文本就足够",
    "{path}, line {n} is not a chat: {problem}": "{path} 第 {n} 行不是对话：{problem}",
    "a line looks like {example}": "一行应形如 {example}",
    "nested too deeply": "嵌套过深",
    "it has no messages": "其中没有 messages",
    "{count} tokens of the calibration are too many, and left out": "校准文本过多，略去 {count} 个 token",
    "quantising needs auto-gptq, which is not installed": "量化需要 auto-gptq，但尚未安装",
    "it comes with qwenchat for Python 3.11 on Linux and Windows (x86-64); "
    "what is quantised there runs everywhere": (
        "在 Linux 和 Windows（x86-64）的 Python 3.11 上，它随 qwenchat 一同安装；量化的结果可在任何环境运行"
    ),
    "auto-gptq cannot be imported: {reason}": "无法导入 auto-gptq：{reason}",
    "install qwenchat anew, in an environment of its own": "请在独立的环境中重新安装 qwenchat",
    "not enough disk: quantising needs {needed} GB, {folder} has {free} GB free": (
        "磁盘空间不足：量化需要 {needed} GB，{folder} 可用 {free} GB"
    ),
    "free some, or give a destination on another disk": "请腾出空间，或把目标放到另一块磁盘",
    "not enough memory on {device}: quantising needs {needed} GiB, {free} GiB free": (
        "{device} 内存不足：量化需要 {needed} GiB，可用 {free} GiB"
    ),
    "{folder} is in the way": "{folder} 已存在且另有他用",
    "move it, or give another destination": "请移走它，或给出别的目标",
    "another qwenchat works in {folder}": "另一个 qwenchat 正在 {folder} 中工作",
    "wait for it, or stop it": "请等它结束，或将其停止",
    "{path} is damaged": "{path} 已损坏",
    "remove {folder} and begin anew": "请删除 {folder} 后重新开始",
    "the work in {folder} is of another kind; it begins anew": (
        "{folder} 中的工作对应别的来源、设置或校准文本，现重新开始"
    ),
    "going on after {done} of {count} steps": "从已完成的 {done}/{count} 步继续",
    "the same command goes on where it stopped": "再次运行同一命令会从中断处继续",
    "memory ran out in the middle of a layer": "处理某一层时内存耗尽",
    "checking the source": "校验来源",
    "quantising {count} layers": "量化 {count} 层",
    "{time} left": "剩余 {time}",
    "putting the checkpoint together": "组装检查点",
    "{seconds} s": "{seconds} 秒",
    "{minutes} min": "{minutes} 分钟",
    "layer {n}: {problem}": "第 {n} 层：{problem}",
    "the activations are not finite": "激活值不是有限数",
    "the checkpoint is damaged, or its training went astray": "检查点已损坏，或其训练出了问题",
    "weights are not finite, or too large for float16": "权重不是有限数，或超出 float16 的范围",
    "{path}: the tensor {name} is not finite, or too large for float16": (
        "{path}：张量 {name} 不是有限数，或超出 float16 的范围"
    ),
    "the calibration says too little of the inputs to quantise for them": (
        "校准文本不足以反映输入，无法据此量化"
    ),
    "give more and more varied text with --calibration": "请用 --calibration 提供更多、更多样的文本",
    "{folder}: {size}, made in {time}": "{folder}：{size}，用时 {time}",
    "calling {name}": "调用 {name}",
    "{name} is {command}": "{name} 即 {command}",
    "run this code?": "运行这段代码？",
    "not run": "未运行",
    "the code calls {names}, which runs after your word alone; --yes is your word": (
        "代码会调用 {names}，须经你同意才运行；可使用 --yes"
    ),
    "the code stopped: {reason}": "代码已停止：{reason}",
    "the model wrote no code": "模型没有写出代码",
    "say the task in other words": "请换一种说法",
    "an empty line sends this to the model": "输入空行会把它发给模型",
    "there is no tool {name}": "没有工具 {name}",
    "the tools: {known}": "可用的工具：{known}",
    "the tool {name} is not there: nothing was named that answers it": (
        "工具 {name} 不可用：没有指定由什么来回答"
    ),
    "the command of {name} cannot be read: {reason}": "{name} 的命令无法解析：{reason}",
    "the command of {name} is empty": "{name} 的命令是空的",
    "{command} cannot be started: {reason}": "无法启动 {command}：{reason}",
    "{command} took more than {seconds} s": "{command} 超过了 {seconds} 秒",
    "{command} ended with {code}: {said}": "{command} 以 {code} 结束：{said}",
    "{address} does not answer: {reason}": "{address} 没有应答：{reason}",
    "{name} is no name of a variable": "{name} 不能作为变量名",
    "{option} is {value}, expected NAME=…": "{option} 的值是 {value}，应为 NAME=…",
    "{option} names {name} twice": "{option} 两次指定了 {name}",
    "{path}: {size}, written and read back in {time}": "{path}：{size}，写入并读回核对，用时 {time}",
    "writing": "写入",
    "reading back": "读回核对",
    "--type is for --to gguf; a folder keeps the numbers as they are stored": (
        "--type 只用于 --to gguf；文件夹保留数值原样"
    ),
    "{option} is {value}, expected {known}": "{option} 的值是 {value}，应为 {known}",
    "the built-in model is of another kind: --to float is for it, and for it alone": (
        "内置模型属于另一种架构：--to float 用于它，也只用于它"
    ),
    "give a first-generation Qwen checkpoint as SOURCE for the others": (
        "其他格式请将第一代 Qwen 检查点作为 SOURCE"
    ),
    "--from is for demo": "--from 只用于 demo",
    "what is exported is a folder with config.json and safetensors": (
        "可导出的是含有 config.json 和 safetensors 的文件夹"
    ),
    "{folder} is of the kind {kind}, which today's engines read as it is": (
        "{folder} 属于 {kind}，如今的引擎可直接读取"
    ),
    "export is for the first Qwen generation": "导出只用于第一代 Qwen",
    "{switches} has no place in Qwen2: up to {tokens} tokens the two are equal, and the exported model says "
    "that this is its context": (
        "Qwen2 没有 {switches}：{tokens} 个 token 以内两者相同，导出的模型以此为其上下文长度"
    ),
    "the codes of this checkpoint are none of Q8_0: they are rounded anew": (
        "此检查点的编码不能直接作为 Q8_0，将重新舍入"
    ),
    "not enough disk: the export takes {needed} GB, {folder} has {free} GB free": (
        "磁盘空间不足：导出需要 {needed} GB，{folder} 可用 {free} GB"
    ),
    "{path}: {name} has no place in Qwen2": "{path}：Qwen2 没有 {name}",
    "{folder}: its vocabulary splits texts otherwise than Qwen's": (
        "{folder}：其词表切分文本的方式与 Qwen 不同"
    ),
    "{folder}: it is not quantised as GPTQ does it, all layers alike and the output layer in floats": (
        "{folder}：它的量化方式不是各层一致、输出层为浮点的 GPTQ"
    ),
    "this checkpoint cannot be exported": "此检查点无法导出",
    "{path}: {name} is not what was written": "{path}：{name} 与写入的内容不符",
    "the disk is damaged, or something else writes there: remove the folder and begin anew": (
        "磁盘已损坏，或有其他程序在写入：请删除该文件夹后重新开始"
    ),
    "{folder}: matrices of {columns} inputs cannot be {kind}": (
        "{folder}：{columns} 个输入的矩阵不能存为 {kind}"
    ),
    "give --type f16": "请使用 --type f16",
    "the tensor {name} is not finite, or too large for float16": (
        "张量 {name} 含非有限值，或超出 float16 范围"
    ),
    "{folder}: no list of merges gives the tokens of this vocabulary": (
        "{folder}：没有合并列表能得到此词表的 token"
    ),
    "the .tiktoken file is damaged, or of another model": ".tiktoken 文件已损坏，或属于其他模型",
    "perplexity {before} before, {after} after ({change}), on {tokens} tokens that it was not made for": (
        "困惑度：量化前 {before}，量化后 {after}（{change}），在未用于校准的 {tokens} 个 token 上测得"
    ),
    # --- the command line: the doctor -----------------------------------------------------------------
    "asking the Hub": "正在询问 Hub",
    "asking the package index": "正在询问软件包索引",
    "; ": "；",
    "{name}, {kernels}": "{name}，{kernels}",
    "not enough memory to load {file}": "内存不足，无法载入 {file}",
    "close other programs, or raise the limit (ulimit -v)": "请关闭其他程序，或提高限制（ulimit -v）",
    "a package cannot be imported: {reason}": "无法导入软件包：{reason}",
    "nothing here can confine a program, so none is run: {reasons}": (
        "这里没有可用的沙箱，因此不运行程序：{reasons}"
    ),
    "qwenchat doctor tells more; a kernel with Landlock, or bubblewrap, is enough": (
        "qwenchat doctor 有详细说明；支持 Landlock 的内核或 bubblewrap 即可"
    ),
    "{program} cannot be started: {reason}": "无法启动 {program}：{reason}",
    "{program} does not start: {reason}": "{program} 启动失败：{reason}",
    "{setting}: {program} is no Python that starts: {reason}": (
        "{setting}：{program} 不是可以启动的 Python：{reason}"
    ),
    "the code would read all of {home}, which lies in the interpreter's own folder {folder}": (
        "代码将能读取整个 {home}，因为它位于解释器自己的文件夹 {folder} 中"
    ),
    "Code": "代码",
    "Run Python in a sandbox; its variables stay for the next run.": (
        "在沙箱中运行 Python；变量会留给下一次运行。"
    ),
    "Copy a file of any kind to where Python runs.": "把任意类型的文件复制到运行 Python 的地方。",
    "Run the Python of the last reply in the sandbox, or its block N, after asking.": (
        "确认后在沙箱中运行上一个回答里的 Python，或其中第 N 段。"
    ),
    "there is no Python in the last reply": "上一个回答中没有 Python 代码",
    "run it?": "运行吗？",
    "nothing was run": "没有运行",
    "the next run starts a new interpreter": "下一次运行会启动新的解释器",
    "interrupted; the variables are kept": "已中断；变量仍保留",
    "it ended and said nothing": "运行结束，没有输出",
    "Python in {sandbox}": "Python 在 {sandbox} 中",
    "Python with no sandbox": "Python 没有沙箱",
    "nothing here confines code ({reason}); it would run with all your rights": (
        "这里没有可以限制代码的沙箱（{reason}）；代码将以你的全部权限运行"
    ),
    "run it once? [y/N] ": "只运行这一次吗？[y/N] ",
    "The Python whose packages the code of a chat can import; the code runs in a sandbox.": (
        "对话中的代码可以导入哪个 Python 的软件包；代码在沙箱中运行。"
    ),
    "a path": "路径",
    "the one that runs qwenchat": "运行 qwenchat 的那个",
    "name an interpreter elsewhere: tools_python": "请指定位于别处的解释器：tools_python",
    "a chat asks before each run of code": "对话在每次运行代码之前都会询问",
    "no code is run here": "这里不运行代码",
    "the sandbox could not be tried: {reason}": "无法检验沙箱：{reason}",
    "run no code here": "请不要在这里运行代码",
    "trying the sandbox": "正在检验沙箱",
    "sandbox": "沙箱",
    "{name} does not hold: code could {attempts}": "{name} 不可靠：代码可以 {attempts}",
    "{name}; {attempts}": "{name}；{attempts}",
    "{count} attempts to get out denied": "拒绝了 {count} 次越界尝试",
    "attempts to get out of the sandbox": "越出沙箱的尝试",
    "files": "文件",
    "network": "网络",
    "processes": "进程",
    "operating system": "操作系统",
    "limits": "限额",
    "denied": "已拒绝",
    "untried": "未检验",
    "done": "得逞",
    "install qwenchat again": "请重新安装 qwenchat",
    "torch cannot be imported: {reason}": "无法导入 torch：{reason}",
    "install it again: pip install --force-reinstall torch": (
        "请重新安装：pip install --force-reinstall torch"
    ),
    "{path} not found; using the defaults": "{path} 不存在，使用默认值",
    "{folder}, {free} free": "{folder}，可用 {free}",
    "{folder} is on a full disk: {free} free": "{folder} 所在磁盘已满：可用 {free}",
    "{folder} cannot be written": "{folder} 不可写",
    "QWENCHAT_HOME and HF_HOME name other places": "可用 QWENCHAT_HOME 与 HF_HOME 指定其他位置",
    "{endpoint} answers": "{endpoint} 可以访问",
    "{endpoint} cannot be reached: {reason}": "无法访问 {endpoint}：{reason}",
    "what is on this machine works without it": "本机已有的模型不受影响",
    "auto-gptq is not installed, so qwenchat quantize does not work": (
        "未安装 auto-gptq，因此 qwenchat quantize 不可用"
    ),
    "it has wheels for Linux and Windows on x86-64, up to Python 3.11": (
        "它只为 x86-64 的 Linux 与 Windows 提供安装包，最高到 Python 3.11"
    ),
    "no CUDA GPU; models run on the CPU": "没有 CUDA GPU，模型在处理器上运行",
    "this torch is built without CUDA": "此 torch 不含 CUDA",
    "{device}: {name}, compute capability {capability}, CUDA {cuda}, driver {driver}, "
    "{free} of {total} GiB free": (
        "{device}：{name}，计算能力 {capability}，CUDA {cuda}，驱动 {driver}，可用 {free} / {total} GiB"
    ),
    "{name}; falling back to plain torch: {reason}": "{name}；改用普通 torch：{reason}",
    "{free} of {total} GiB free": "可用 {free} / {total} GiB",
    "program": "程序",
    "gpu": "显卡",
    "processor": "处理器",
    "memory": "内存",
    "sessions": "会话",
    "cache": "缓存",
    "checkpoints": "检查点",
    "quantize": "量化",
    "chat": "对话",
    "best here": "本机最佳",
    "prompt": "提示词",
    "your system prompt: {text}": "您的系统提示词：{text}",
    "yours, before the first message, as the model has no place for one: {text}": (
        "您的，放在第一条消息之前，因为模型没有系统提示词的位置：{text}"
    ),
    "qwenchat models pull {name}, {size}, downloads a model that answers far better: qwenchat -m {name}": (
        "qwenchat models pull {name}（{size}）可下载回答好得多的模型，然后用 qwenchat -m {name}"
    ),
    "no published chat fits {device}": "没有已发布的对话模型能放进 {device}",
    "{model}: {needed} of {free} GiB on {device}, {kernels}": (
        "{model}：在 {device} 上占 {free} GiB 中的 {needed}，{kernels}"
    ),
    "known models": "已知的模型",
    "kernels, {device}": "计算核（{device}）",
    "here": "在本机",
    "a chat would use {model}": "对话将由 {model} 回答",
    "it is not saved": "对话不会保存",
    "{said}, downloaded first": "{said}（会先下载）",
    "a chat would fail: {message}": "对话会失败：{message}",
    # --- the command line: what went wrong --------------------------------------------------------
    "out of memory; a smaller model or --context needs less": "内存不足；请改用更小的模型，或减小 --context",
    "the answer cannot be written: {reason}": "无法写出回答：{reason}",
    "the system": "系统",
    "{path}: {reason}": "{path}：{reason}",
    "the output cannot be written: {reason}": "无法写出输出：{reason}",
    "debug log: {path}": "调试日志：{path}",
    "the log file {path} cannot be written: {reason}": "无法写入日志文件 {path}：{reason}",
    "leave out --debug": "请去掉 --debug",
    "the traceback is in the debug log": "错误堆栈见调试日志",
    "run it again with --debug for a traceback": "加上 --debug 再运行一次可查看错误堆栈",
    # --- an error and what to do, wherever it is told ------------------------------------------------
    "{message}; {hint}": "{message}；{hint}",
    ", ": "、",
    # --- finding and loading a model ------------------------------------------------------------------
    "the built-in model ({name})": "内置模型（{name}）",
    "answering with {model}": "使用 {model} 回答",
    "answering with {model} and its {tokens} tokens": "使用 {model} 回答，上下文为 {tokens} 个 token",
    "there is no model or folder called {name}": "没有名为 {name} 的模型或文件夹",
    "{path} is not a model: it has no config.json and no weights": (
        "{path} 不是模型：没有 config.json，也没有权重"
    ),
    "give a checkpoint folder, a known name, or demo": "请指定检查点文件夹、已知名称或 demo",
    "a checkpoint is a folder with config.json in it": "检查点是含有 config.json 的文件夹",
    "{path} is missing": "缺少 {path}",
    "{path} is not a file": "{path} 不是文件",
    "{path} is larger than {limit} MiB, expected a small JSON file": (
        "{path} 大于 {limit} MiB，应为小的 JSON 文件"
    ),
    "{path} is not valid JSON: {reason}": "{path} 不是有效的 JSON：{reason}",
    "{path} holds a JSON {kind}, expected an object": "{path} 中是 JSON 的 {kind}，应为对象",
    "{name}: expected one .tiktoken file, found {count}": "{name}：应有一个 .tiktoken 文件，却有 {count} 个",
    "the vocabulary belongs to the checkpoint; fetch it again": "词表是检查点的一部分；请重新获取",
    "{name}: there is no tokenizer in the checkpoint: no .tiktoken file and no tokenizer.json": (
        "{name}：检查点中没有分词器：既没有 .tiktoken 文件，也没有 tokenizer.json"
    ),
    "without its vocabulary it cannot chat; fetch it again": "没有词表就不能对话；请重新获取",
    "{folder}: the vocabulary has {tokens} tokens, the model {size}": (
        "{folder}：词表有 {tokens} 个 token，而模型有 {size} 个"
    ),
    "{name}: the id {id} is both an ordinary and a special token": (
        "{name}：ID {id} 既是普通 token 又是特殊 token"
    ),
    "{name}: split_pattern is {value}, expected {names}": "{name}：split_pattern 为 {value}，应为 {names}",
    "the token id {id} is not in the vocabulary of {count}": "token ID {id} 不在 {count} 个 token 的词表中",
    "a stop string is empty": "停止文本为空",
    "leave it out": "请去掉它",
    "{path} has more than {limit} lines, expected a vocabulary": "{path} 超过 {limit} 行，应为词表",
    "{name}: expected a token in base64 and its id": "{name}：应为 base64 写的 token 及其 ID",
    "{name}: expected distinct tokens with distinct ids from 0 up": (
        "{name}：token 及其从 0 起的 ID 应各不相同"
    ),
    "{name}: added_tokens_decoder has more than {most} tokens": (
        "{name}：added_tokens_decoder 超过 {most} 个 token"
    ),
    "{name}: added_tokens_decoder is malformed, expected ids and contents": (
        "{name}：added_tokens_decoder 格式错误，应为 ID 及其内容"
    ),
    "{name}: the special token {form} is missing from added_tokens_decoder": (
        "{name}：added_tokens_decoder 中缺少特殊 token {form}"
    ),
    "{name}: added_tokens_decoder has a token or an id twice, or an empty token": (
        "{name}：added_tokens_decoder 中有重复的 token 或 ID，或有空 token"
    ),
    "{name}: added_tokens_decoder has more than {most} letters": (
        "{name}：added_tokens_decoder 超过 {most} 个字符"
    ),
    "{name}: {key} is {value}, expected a whole number up to {most}": (
        "{name}：{key} 为 {value}，应为不超过 {most} 的整数"
    ),
    "no such device: {name}": "本机没有设备 {name}",
    # --- any chat model of the Hub --------------------------------------------------------------------
    "{name}: the {backend} backend does not read {kind}": "{name}：{backend} 后端不能读取 {kind}",
    "leave out --backend: {other} reads it": "请去掉 --backend：{other} 可以读取",
    "start qwenchat without --backend: {other} reads it": "请不带 --backend 启动 qwenchat：{other} 可以读取",
    "--kv-cache {kind} is for the native backend alone": "--kv-cache {kind} 只用于 native 后端",
    "leave out --kv-cache: {name} is loaded by transformers": (
        "请去掉 --kv-cache：{name} 由 transformers 加载"
    ),
    "start qwenchat without --kv-cache: {name} is loaded by transformers": (
        "请不带 --kv-cache 启动 qwenchat：{name} 由 transformers 加载"
    ),
    "this model has no system prompts: yours is put before the first message": (
        "此模型没有系统提示词：提示词会放在第一条消息之前"
    ),
    "{name}: its weights ({kind}) are made floats, which take more memory": (
        "{name}：其权重（{kind}）转为浮点数，占用更多内存"
    ),
    "{reason}; transformers runs it, which is slower": "{reason}；由 transformers 运行，速度较慢",
    "memory limits the context to {tokens} of {most} tokens": (
        "内存有限，上下文为 {most} 个 token 中的 {tokens} 个"
    ),
    "{name}: this is an adapter, not a model: adapter_config.json": (
        "{name}：这是适配器，不是模型：adapter_config.json"
    ),
    "{name}: the model generates with code of its own (custom_generate), which is never run": (
        "{name}：模型用自带的代码生成（custom_generate），而这从不允许"
    ),
    "without that folder it would generate as others do": "去掉该文件夹，它就像其他模型一样生成",
    "merge it into its base model, and give that folder": "请把它合并到基础模型，再指定合并后的文件夹",
    "{name}: the weights are a pickle ({file}), which could run any code": (
        "{name}：权重是 pickle（{file}），可能运行任意代码"
    ),
    "look for the model's safetensors": "请找该模型的 safetensors 版本",
    "{name}: there are no weights, expected *.safetensors": "{name}：没有权重，应有 *.safetensors",
    "the download is not complete; fetch it again": "下载不完整，请重新获取",
    "{name}: the weights are quantised with {method}, expected floats or GPTQ": (
        "{name}：权重以 {method} 量化，应为浮点数或 GPTQ"
    ),
    "look for the model's unquantised safetensors": "请找该模型未量化的 safetensors 版本",
    "{name}: this is not a safetensors file: {reason}": "{name}：不是 safetensors 文件：{reason}",
    "{name}: {what} cannot be read: {reason}": "{name}：无法读取{what}：{reason}",
    "the model": "模型",
    "the tokenizer": "分词器",
    "it is damaged, or of a kind that transformers {version} does not read": (
        "它已损坏，或是 transformers {version} 不能读取的种类"
    ),
    "{name}: {kind} is not a language model": "{name}：{kind} 不是语言模型",
    "a chat needs a ForCausalLM model": "聊天需要 ForCausalLM 类的模型",
    "{name}: model_type {kind!r} needs code of its own (auto_map), which is never run": (
        "{name}：model_type {kind!r} 需要运行自带的代码（auto_map），而这从不允许"
    ),
    "look for the model in transformers' own format": "请找该模型的 transformers 原生格式",
    "{name}: transformers {version} knows no model_type {kind!r}": (
        "{name}：transformers {version} 不认识 model_type {kind!r}"
    ),
    "it may be newer than that, or no language model": "它可能更新，或不是语言模型",
    "{name}: there is no tokenizer.json": "{name}：没有 tokenizer.json",
    "{name}: the token {form} has the id {id}, and the model has {count}": (
        "{name}：token {form} 的 id 是 {id}，而模型只有 {count} 个"
    ),
    "the tokenizer belongs to another checkpoint": "该分词器属于另一个检查点",
    "{name}: added_tokens_decoder has the token {form}, which tokenizer.json does not have": (
        "{name}：added_tokens_decoder 中的 token {form} 不在 tokenizer.json 中"
    ),
    "use --backend huggingface": "请使用 --backend huggingface",
    "start qwenchat with --backend huggingface": "请以 --backend huggingface 启动 qwenchat",
    "{path}: the tokenizer cannot be read: {reason}": "{path}：无法读取分词器：{reason}",
    "the tokenizers that transformers has in Python are not used": (
        "不使用 transformers 中以 Python 写的分词器"
    ),
    "the model's tokenizer fails: {reason}": "模型的分词器出错：{reason}",
    "{name}: there are {count} GGUF files": "{name}：有 {count} 个 GGUF 文件",
    "give one of them: {path}": "请指定其中一个：{path}",
    "{name}: its chat templates have names ({names}), and none is the default": (
        "{name}：它的聊天模板都有名称（{names}），但没有默认模板"
    ),
    "put the one that is to be used into chat_template.jinja": "请把要使用的模板写入 chat_template.jinja",
    "{name}: this is one of {count} parts of a GGUF file, and its name does not say which": (
        "{name}：这是一个 GGUF 文件的 {count} 个部分之一，但文件名没有说明是哪一个"
    ),
    "name the parts as they were: NAME-00001-of-00003.gguf and so on": (
        "请恢复各部分原来的文件名：NAME-00001-of-00003.gguf 等"
    ),
    "{name}: part {number} of {count} of this GGUF file is missing: {file}": (
        "{name}：缺少这个 GGUF 文件的第 {number} 部分（共 {count} 部分）：{file}"
    ),
    "fetch it, and put it beside the others": "请下载它，并与其他部分放在一起",
    "{name}: this is named part {number} of {count}, and it says split.no {no} and split.count {of}": (
        "{name}：文件名是第 {number} 部分（共 {count} 个），内容的 split.no 却是 {no}，split.count 是 {of}"
    ),
    "its name is another's; fetch it again": "文件名与内容不符；请重新下载",
    "{name}: split.count is {value}, expected a whole number up to {most}": (
        "{name}：split.count 是 {value}，应为不超过 {most} 的整数"
    ),
    "its parts have {found} tensors, and it says {expected}": (
        "各部分共有 {found} 个张量，而文件写明 {expected} 个"
    ),
    "{name}: this is a GGUF file of version 1, and only versions 2 and 3 are read": (
        "{name}：这是第 1 版的 GGUF 文件，只能读取第 2 和第 3 版"
    ),
    "look for a newer GGUF file of the model": "请找该模型较新的 GGUF 文件",
    "the tensor {name} is of the kind {kind}; read are {known}": (
        "张量 {name} 的类型是 {kind}；能读取的有 {known}"
    ),
    "the tensor {name} is of the kind {kind}, which ggml has given up": (
        "张量 {name} 的类型是 {kind}，ggml 已不再支持"
    ),
    "the tensor {name} is of the kind {number}, which is not known": (
        "张量 {name} 的类型是 {number}，无法识别"
    ),
    "{name}: its tokenizer is of the kind {kind}, and our own engine reads byte-level BPE (gpt2)": (
        "{name}：其分词器的类型是 {kind}，而本程序自己的引擎只能读取字节级 BPE（gpt2）"
    ),
    "look for the model's safetensors, or use --backend huggingface": (
        "请找该模型的 safetensors 版本，或使用 --backend huggingface"
    ),
    "look for the model's safetensors, or start qwenchat with --backend huggingface": (
        "请找该模型的 safetensors 版本，或以 --backend huggingface 启动 qwenchat"
    ),
    "{name}: its pre-tokenizer is {pre}; our own engine reads {known}": (
        "{name}：其预分词器是 {pre}；本程序自己的引擎能读取 {known}"
    ),
    "{name}: {count} control and user-defined tokens, expected at most {most}": (
        "{name}：有 {count} 个控制 token 和用户定义的 token，不应超过 {most} 个"
    ),
    "{name}: a token is there twice": "{name}：有一个 token 出现了两次",
    "{name}: its SentencePiece vocabulary has no tokens for all bytes": (
        "{name}：它的 SentencePiece 词表没有全部字节的 token"
    ),
    "{name}: its tokens have no scores": "{name}：它的 token 没有分数",
    "{name}: the scores of its tokens are not as many as the tokens": "{name}：token 分数的数量与 token 不符",
    "{name}: its merges do not give its tokens": "{name}：其合并规则得不出它的 token",
    "{name}: {merge} is no merge, expected two tokens": "{name}：{merge} 不是合并规则，应为两个 token",
    "fetch it again": "请重新下载",
    "{path}: it is not laid out as a tokenizer": "{path}：其结构不是分词器",
    "{path}: the architecture is {architecture}; our own engine reads {known}": (
        "{path}：架构是 {architecture}；本程序自己的引擎能读取 {known}"
    ),
    "{name}: the model is not computed with its tensor {tensor}": "{name}：计算中不会用到张量 {tensor}",
    "{name}: its merges are no list of texts": "{name}：其合并规则不是文本列表",
    "{name}: {key} is {value}, which GGUF does not have": "{name}：{key} 是 {value}，GGUF 中没有这样的值",
    "{name}: this is a big-endian GGUF file, and only little-endian ones are read": (
        "{name}：这是大端序的 GGUF 文件，只能读取小端序的"
    ),
    "look for the model's little-endian GGUF file": "请找该模型的小端序 GGUF 文件",
    "{path}: {name} is {value}, expected {expected}": "{path}：{name} 为 {value}，应为{expected}",
    "a whole number from {least} to {most}": "从 {least} 到 {most} 的整数",
    "a number from {least} to {most}": "从 {least} 到 {most} 的数",
    "a finite number": "有限的数",
    "a positive number": "正数",
    "a positive number up to 1": "不大于 1 的正数",
    "a number above 1": "大于 1 的数",
    "full_attention for every layer": "每层都是 full_attention",
    "a list of positive numbers": "正数的列表",
    "a text": "文本",
    "token ids": "token 编号",
    "float32, float16 or bfloat16": "数据类型 float32、float16 或 bfloat16",
    "{name}: the tensor {tensor} is {found}, and config.json makes it {expected}": (
        "{name}：张量 {tensor} 的形状为 {found}，而按 config.json 应为 {expected}"
    ),
    "they belong to different models, or one is damaged": "二者属于不同的模型，或其中之一已损坏",
    "{name}: {key} is {value}, which is not computed with": "{name}：{key} 为 {value}，不支持这种计算",
    "this transformers does not know it: the model may be newer than that": (
        "当前的 transformers 不认识它：模型可能更新"
    ),
    "{name}: the architecture is missing": "{name}：缺少模型架构",
    "{name}: the tokenizer of a Gemma GGUF file is not read right": (
        "{name}：Gemma 的 GGUF 文件的分词器不能被正确读取"
    ),
    "{name}: it has no vocabulary": "{name}：文件中没有词表",
    "{name}: the kinds of its tokens are not as many as the tokens": "{name}：token 类型的数量与 token 不符",
    "{name}: {key} is {value}, which is not a token": "{name}：{key} 为 {value}，没有这个 token",
    "{name}: the key {key} is missing": "{name}：缺少键 {key}",
    "{name}: there is no chat template": "{name}：没有聊天模板",
    "it is a base model, which does not chat; look for its chat or instruct version": (
        "这是基础模型，不能对话；请找它的 chat 或 instruct 版本"
    ),
    "it is a base model, which goes on with texts: qwenchat ask --complete; "
    "look for its chat or instruct version": (
        "这是基础模型，只会续写文本：qwenchat ask --complete；请找它的 chat 或 instruct 版本"
    ),
    "{name}: its zero points are stored otherwise than its label says (gptq or gptq_v2); "
    "they are read as they are stored": (
        "{name}：零点的存储方式与其标签（gptq 或 gptq_v2）不符；已按实际存储方式读取"
    ),
    "{problem}: left out": "{problem}：已忽略",
    "{name}: its attention slides over {tokens} tokens; the context is no longer than that": (
        "{name}：它的注意力窗口为 {tokens} 个 token；上下文不会超过这个长度"
    ),
    "{name}: its chat_format is raw": "{name}：它的 chat_format 是 raw",
    "a text to go on with is one message of the user's, and nothing else": "要续写的文本只能是一条用户消息",
    "{name}: the tensor {tensor} is missing": "{name}：缺少张量 {tensor}",
    "{name}: {kind} keeps its context in a way that is not supported": (
        "{name}：不支持 {kind} 保存上下文的方式"
    ),
    "models with attention in every layer are": "每层都有注意力的模型才受支持",
    "{name}: the weights are quantised with GPTQ, which takes a CUDA GPU for this model": (
        "{name}：权重以 GPTQ 量化，此模型需要 CUDA GPU"
    ),
    "look for the model's unquantised safetensors, or for a GGUF file": (
        "请找该模型未量化的 safetensors 版本，或 GGUF 文件"
    ),
    "{name}: the tensor {tensor} holds no zero points": "{name}：张量 {tensor} 中没有零点",
    (
        "{name}: its zero points are stored as they are (gptq_v2) and not minus one, as its label "
        "says (gptq): auto-gptq would compute with wrong ones"
    ): "{name}：零点按原值存储（gptq_v2），而非标签所说的减一存储（gptq）：auto-gptq 会用错误的零点计算",
    "{name}: the weights are quantised with GPTQ, and auto-gptq is not here: {reason}": (
        "{name}：权重以 GPTQ 量化，而此处没有 auto-gptq：{reason}"
    ),
    "install auto-gptq 0.7.1, which takes Python 3.11 or older": (
        "请安装 auto-gptq 0.7.1，需要 Python 3.11 或更早版本"
    ),
    "the chat template cannot be read: {reason}": "无法读取聊天模板：{reason}",
    "the chat template refuses the chat: {reason}": "聊天模板拒绝此对话：{reason}",
    "the chat template cannot be run: {reason}": "无法运行聊天模板：{reason}",
    "it takes more time or memory than any chat template has reason to": (
        "所用的时间或内存超出聊天模板的合理范围"
    ),
    "the chat template leaves out a message": "聊天模板漏掉了一条消息",
    "the chat template leaves out a part of what is said": "聊天模板漏掉了消息的一部分",
    "this model cannot hold this chat": "此模型不能进行这个对话",
    "this model cannot hold a chat": "此模型不能进行对话",
    "say it in other words; in a chat, /undo takes it back": "请换一种说法；在对话中可用 /undo 收回",
    "the {role} says {border}, with which this model tells turns apart": (
        "{role} 的话里有 {border}，而此模型靠它区分各轮"
    ),
    "the message holds what this model's tokenizer can only read as a control token": (
        "消息里有此模型的分词器只能读作控制 token 的文字"
    ),
    # --- loading, whatever runs the model -------------------------------------------------------------
    "use --device cpu": "请使用 --device cpu",
    "start qwenchat with --device cpu": "请以 --device cpu 启动 qwenchat",
    "--context {asked} is out of range": "--context {asked} 超出范围",
    "this model takes 1 to {most} tokens": "此模型可取 1 到 {most} 个 token",
    "this model takes 1 to {most} tokens: start qwenchat with as many": (
        "此模型可取 1 到 {most} 个 token：请以此范围内的值启动 qwenchat"
    ),
    "not enough memory on {device}: needs {needed} GiB in {dtype} (weights {weights}, {tokens} "
    "tokens of context {cache}, work {work}), {free} GiB free": (
        "{device} 内存不足：以 {dtype} 需要 {needed} GiB（权重 {weights}，"
        "{tokens} 个 token 的上下文 {cache}，计算 {work}），可用 {free} GiB"
    ),
    "memory ran out while the model was loaded": "加载模型时内存耗尽",
    "--context {tokens} would fit": "--context {tokens} 可以放下",
    "it fits if qwenchat is started with --context {tokens}": "以 --context {tokens} 启动 qwenchat 可以放下",
    "memory ran out: {reason}": "内存耗尽：{reason}",
    "a shorter --context or another model may fit": "减小 --context 或换用其他模型也许可以放下",
    "/clear begins a new chat, and /model NAME loads another model": (
        "/clear 开始新对话，/model NAME 加载其他模型"
    ),
    "a smaller or more strongly quantised model may fit": "更小或量化程度更高的模型也许可以放下",
    "out of memory while loading the model": "加载模型时内存不足",
    "a smaller model may fit": "更小的模型也许可以放下",
    "the model failed to load: {error}": "模型加载失败：{error}",
    "taken back: the model is still loading": "已收回：模型仍在加载",
    "{problem}: this begins anew, and the first question moves the file aside": (
        "{problem}：这里从头开始，提出第一个问题时该文件会被移到一旁"
    ),
    "this chat is not saved yet: {reason}": "这个对话还没有保存：{reason}",
    "/export writes it elsewhere, /quit leaves it": "/export 可另存到别处，/quit 则放弃",
    "/export writes it elsewhere; /quit or Ctrl-D once more leaves without it": (
        "/export 可另存到别处；再次 /quit 或 Ctrl-D 则不保存就离开"
    ),
    "a file for the editor cannot be written: {reason}": "无法为编辑器写入文件：{reason}",
    "the history of typed lines is not saved: {path}: {reason}": "输入历史无法保存：{path}：{reason}",
    "keeping {model}": "仍使用 {model}",
    "keeping {model}; /retry asks it": "仍使用 {model}；/retry 可用它重新提问",
    "/model NAME tries another; /retry then asks again": "/model NAME 可改用其他模型，之后用 /retry 重新提问",
    "--continue and --session cannot be combined": "--continue 与 --session 不能同时使用",
    "the system prompt is now {text!r}; the chat is read anew": "系统提示词现为 {text!r}，对话将重新读取",
    "the system prompt is the model's own again; the chat is read anew": (
        "系统提示词重新用模型自带的，对话将重新读取"
    ),
    "there is no system prompt any more; the chat is read anew": "系统提示词已去掉，对话将重新读取",
    "{count} earlier turns are not shown": "更早的 {count} 轮未显示",
    # --- the config file ------------------------------------------------------------------------------
    "{path}: unknown key {key}": "{path}：未知的键 {key}",
    "settings stand at the top level, not in [tables]": "设置应写在顶层，而不在 [表] 里",
    "the keys are {names}": "可用的键：{names}",
    "{variable} names it": "由 {variable} 指定",
    "a config file was expected": "此处应为配置文件",
    "write a JSON object: {example}": "请写成 JSON 对象：{example}",
    "{name} is a setting; in the file it stands above [{table}]": (
        "{name} 是设置，在文件中应写在 [{table}] 之前"
    ),
    "{setting}: there is no such home folder": "{setting}：没有这个主文件夹",
    "Invalid statement": "语句无效",
    "Invalid value": "值无效",
    "Expected '=' after a key in a key/value pair": "键之后缺少 '='",
    "Expected newline or end of document after a statement": "语句之后应换行或结束文件",
    "Expected ']' at the end of a table declaration": "表的声明末尾缺少 ']'",
    "Invalid initial character for a key part": "键的首字符无效",
    "Cannot overwrite a value": "同一个键不能赋值两次",
    "Unclosed array": "数组没有结束",
    "Unclosed inline table": "内联表没有结束",
    "Unterminated string": "字符串没有结束",
    "Unescaped '\\' in a string": "字符串中的 '\\' 没有转义",
    "{place}: not UTF-8 (byte {n})": "{place}：不是 UTF-8（第 {n} 字节）",
    "{place}: not valid TOML: {reason}": "{place}：不是有效的 TOML：{reason}",
    # --- what the system says, where a file cannot be opened, read or written ----------------------
    "No such file or directory": "没有该文件或文件夹",
    "Permission denied": "权限不足",
    "Operation not permitted": "不允许此操作",
    "Read-only file system": "文件系统为只读",
    "No space left on device": "磁盘空间不足",
    "Disk quota exceeded": "超出磁盘配额",
    "File exists": "文件已存在",
    "Is a directory": "这是文件夹",
    "Not a directory": "路径中有一部分不是文件夹",
    "Directory not empty": "文件夹不是空的",
    "File name too long": "文件名过长",
    "File too large": "文件过大",
    "Too many levels of symbolic links": "符号链接层数过多",
    "Too many open files": "打开的文件过多",
    "Input/output error": "读写错误",
    "Invalid argument": "参数无效",
    "Name or service not known": "域名无法解析",
    "Temporary failure in name resolution": "域名暂时无法解析",
    "Connection refused": "连接被拒绝",
    "Connection timed out": "连接超时",
    "Network is unreachable": "网络不可达",
    "Cannot allocate memory": "内存不足",
    "Exec format error": "不是可执行的程序",
    # The engine, and values of a conversation.
    "a message has the role {role!r}, expected system, user, assistant or tool": (
        "消息的角色是 {role!r}，应为 system、user、assistant 或 tool"
    ),
    "a message is {kind}, expected a role and a content": "消息是 {kind}，应有角色和内容",
    "a message's content is {kind}, expected text": "消息的内容是 {kind}，应为文本",
    "a message holds a part of the type {kind!r}, expected text": "消息含有类型为 {kind!r} 的部分，应为 text",
    "a message's tool_calls are {kind}, expected a list": "消息的 tool_calls 是 {kind}，应为列表",
    "{where} has the type {kind!r}, expected function": "{where} 的类型是 {kind!r}，应为 function",
    "{where}: {name!r} is {kind}, expected text": "{where}：{name!r} 是 {kind}，应为文本",
    "a message's parts are {kind}, expected a tuple": "消息的 parts 是 {kind}，应为元组",
    "Message.of_text makes a message of a text": "Message.of_text 用文本生成消息",
    "a message's role is {kind}, expected a Role": "消息的 role 是 {kind}，应为 Role",
    "a message has no parts": "消息没有任何部分",
    "a message of the role {role} cannot hold {kind}": "角色为 {role} 的消息不能含有 {kind}",
    "the chat holds a tool call, for which this model's prompt has no form": (
        "对话中有工具调用，而该模型的提示词无法表示它"
    ),
    "leave it out; in a chat, /undo goes back to before it": "请去掉它；在聊天中，/undo 可退回到它之前",
    "encode it first": "请先编码",
    "give at least one token": "请至少给出一个 token",
    "look for a version of the model with all layers quantised alike": "请找所有层以同一方式量化的版本",
    "look for a version of the model with lm_head in floats": "请找 lm_head 为浮点的版本",
    "think is {value!r}, expected true, false or nothing": "think 是 {value!r}，应为 true、false 或不设",
    "max_new_tokens is {limit!r}, expected a whole number of 1 or more": (
        "max_new_tokens 是 {limit!r}，应为不小于 1 的整数"
    ),
    "{name} is {limit!r}, expected a whole number of 1 or more": ("{name} 是 {limit!r}，应为不小于 1 的整数"),
    "node {id} stands where {other} belongs": "节点 {id} 占了 {other} 的位置",
    "node {id}: questions and replies do not alternate": "节点 {id}：提问与回复没有交替",
    "node {node_id} is not a reply": "节点 {node_id} 不是回复",
    "node {node_id} is not a question": "节点 {node_id} 不是提问",
    "node {id}: only replies say how they were made": "节点 {id}：只有回复记录其生成方式",
    "only safetensors are read; pickled weights (.bin, .pt) never are": (
        "只读取 safetensors；从不读取 pickle 权重（.bin、.pt）"
    ),
    "stop is {stop!r}, expected texts that are not empty": "stop 是 {stop!r}，应为非空文本",
    "the checkpoint is incomplete or of another architecture": "检查点不完整，或属于别的架构",
    "the checkpoint is incomplete; fetch it again": "检查点不完整；请重新下载",
    "the conversation has no node {node_id}": "对话中没有节点 {node_id}",
    "the file is damaged or of another model": "文件已损坏，或属于别的模型",
    "the file is damaged; fetch it again": "文件已损坏；请重新下载",
    "the model produced {what}": "模型算出了 {what}",
    "its checkpoint may be damaged, or its numbers too large for the dtype": (
        "检查点可能已损坏，或数值超出该 dtype 的范围"
    ),
    "infinite logits": "无穷大的 logits",
    "NaN or infinite logits": "NaN 或无穷大的 logits",
    "the model would answer otherwise than it was trained to": "否则模型的回答会与训练时不符",
    "the prompt has {length} tokens, the context holds {most}": (
        "提示有 {length} 个 token，上下文只容 {most} 个"
    ),
    "the prompt holds something that is not a token id, expected whole numbers": (
        "提示中有不是 token id 的值，应全为整数"
    ),
    "the prompt is empty": "提示为空",
    "the prompt is text, expected token ids": "提示是文本，应为 token id",
    "the token id {outside} is outside the vocabulary (0 to {most})": (
        "token id {outside} 不在词表中（0 到 {most}）"
    ),
    "token id {token} is outside the vocabulary (0 to {most})": "token id {token} 不在词表中（0 到 {most}）",
    "try again": "请再试一次",
    "{count} of them and no index": "{count} 个，且没有索引",
    "{folder}: the weights have more layers than config.json says ({most})": (
        "{folder}：权重的层数多于 config.json 所写（{most}）"
    ),
    "{folder}: expected model.safetensors or model.safetensors.index.json, found {found}": (
        "{folder}：应有 model.safetensors 或 model.safetensors.index.json，实际：{found}"
    ),
    "{folder}: the tensor {name} is missing, expected {shape}": "{folder}：缺少张量 {name}，应为 {shape}",
    "{index}: weight_map is missing, expected an object of tensor names and files": (
        "{index}：缺少 weight_map，应为张量名与文件的对象"
    ),
    "{index}: {name} is said to be in {file}, expected a .safetensors file name": (
        "{index}：{name} 写明在 {file} 中，应为 .safetensors 文件名"
    ),
    "{name} is {value!r}, expected {allowed}": "{name} 是 {value!r}，应为{allowed}",
    "{path} has changed since it was opened": "{path} 打开之后有变动",
    "{path} is not a whole safetensors file: {reason}": "{path} 不是完整的 safetensors 文件：{reason}",
    "{path}: bits is {bits}, expected 4 or 8": "{path}：bits 是 {bits}，应为 4 或 8",
    "{path}: checkpoint_format is {checkpoint_format}, expected 'gptq' or 'gptq_v2'": (
        "{path}：checkpoint_format 是 {checkpoint_format}，应为 'gptq' 或 'gptq_v2'"
    ),
    "{path}: expected a GGUF file, and it is empty": "{path}：应为 GGUF 文件，却是空的",
    "expected a GGUF file, which starts with {expected}, not with {found}": (
        "应为以 {expected} 开头的 GGUF 文件，开头却是 {found}"
    ),
    "the mark of a GGUF file": "GGUF 文件的标记",
    "the version": "版本号",
    "expected version 2 or 3 of GGUF, not {version}": "应为 GGUF 的第 2 或第 3 版，而不是第 {version} 版",
    "the number of tensors": "张量的数量",
    "the number of metadata entries": "元数据的条目数",
    "expected {what} ({size} bytes) at byte {position}, and {left} bytes are left": (
        "第 {position} 字节处应为 {what}（{size} 字节），只剩 {left} 字节"
    ),
    "expected {what} within the first {most} MiB": "{what} 应在前 {most} MiB 之内",
    "{what} is {number} at byte {position}, and {left} bytes are left": (
        "第 {position} 字节处，{what} 为 {number}，只剩 {left} 字节"
    ),
    "{what} is {number}, expected at most {most}": "{what} 为 {number}，不应超过 {most}",
    "expected at most {most} strings and arrays in the metadata": "元数据中的字符串和数组不应超过 {most} 个",
    "expected {what} of 1 to {longest} bytes, not {length}": (
        "{what} 应为 1 到 {longest} 字节，而不是 {length}"
    ),
    "expected {what} in UTF-8 at byte {position}": "第 {position} 字节处，{what} 应为 UTF-8",
    "a metadata key": "元数据的键",
    "expected the metadata key {name} once, and it comes twice": "元数据的键 {name} 出现了两次",
    "the type of {name}": "{name} 的类型",
    "the value of {name}": "{name} 的值",
    "expected arrays at most {most} deep in {name}": "{name} 中的数组嵌套不应超过 {most} 层",
    "the element type of {name}": "{name} 的元素类型",
    "the number of elements of {name}": "{name} 的元素数量",
    "an element of {name}": "{name} 的元素",
    "expected a value type that GGUF has for {name}, not {kind}": (
        "{name} 应为 GGUF 已有的类型，而不是 {kind}"
    ),
    "expected 0 or 1 for the truth value of {name}, not {found}": (
        "{name} 的布尔值应为 0 或 1，而不是 {found}"
    ),
    "expected a tensor {name}, and there is none": "缺少张量 {name}",
    "expected a whole number for {name}": "{name} 应为整数",
    "expected a power of two from 8 up for {name}, not {found}": (
        "{name} 应为不小于 8 的 2 的幂，而不是 {found}"
    ),
    "expected the tensor {name} once, and it comes twice": "张量 {name} 出现了两次",
    "expected a multiple of {alignment} for the offset of {name}, not {offset}": (
        "{name} 的偏移量应为 {alignment} 的倍数，而不是 {offset}"
    ),
    "the name of a tensor": "张量的名称",
    "the number of dimensions of {name}": "{name} 的维数",
    "expected 1 to {most} dimensions of {name}, not {found}": (
        "{name} 应有 1 到 {most} 个维度，而不是 {found} 个"
    ),
    "a dimension of {name}": "{name} 的维度",
    "the offset of {name}": "{name} 的偏移量",
    "expected dimensions above 0, the fastest a multiple of {elements}, of the {format} tensor {name}, "
    "not {found}": ("{format} 张量 {name} 的维度应大于 0，最快的一维应为 {elements} 的倍数，而不是 {found}"),
    "expected {size} bytes of {name} at byte {position}, and the file ends at {end}": (
        "{name} 的 {size} 字节应从第 {position} 字节开始，而文件止于第 {end} 字节"
    ),
    "expected {name} after {before}, and they overlap": "{name} 应在 {before} 之后，二者却有重叠",
    "expected the architecture 'llama', not {found}": "架构应为 'llama'，而不是 {found}",
    "the width": "宽度",
    "the number of heads": "头数",
    "the head size": "头的大小",
    "{what} is {whole}, which {part} does not divide": "{what} 为 {whole}，不能被 {part} 整除",
    "expected all {size} dimensions of a head to rotate, not {found}": (
        "一个头的全部 {size} 个维度都应旋转，而不是 {found} 个"
    ),
    "expected a tokenizer of the kind ('gpt2', 'smollm'), not {found}": (
        "分词器的类型应为 ('gpt2', 'smollm')，而不是 {found}"
    ),
    "expected a list of tokens and a type for each": "应有 token 的列表，且每个 token 有其类型",
    "expected {expected} tokens and types of tokens, not {tokens} and {types}": (
        "应有 {expected} 个 token 及其类型，而不是 {tokens} 个和 {types} 个"
    ),
    "expected token {n} to be ordinary or a control token in byte-level BPE": (
        "第 {n} 个 token 应为字节级 BPE 的普通 token 或控制 token"
    ),
    "expected the shape {expected} of {name}, not {found}": ("{name} 的形状应为 {expected}，而不是 {found}"),
    "expected finite numbers in {name}": "{name} 中的数应为有限的数",
    "expected a whole number above 0 for {name}, not {found}": "{name} 应为大于 0 的整数，而不是 {found}",
    "expected a token id below {size} for {name}, not {found}": (
        "{name} 应为小于 {size} 的 token 编号，而不是 {found}"
    ),
    "expected a sane number above 0 for {name}, not {found}": "{name} 应为大于 0 的正常数，而不是 {found}",
    "nothing": "无",
    "expected widths that {size} divides, not {hidden} and {mlp} in the MLP": (
        "宽度应能被 {size} 整除，而不是 {hidden} 和 MLP 的 {mlp}"
    ),
    "{path}: group_size is 0, expected -1 or a positive number": "{path}：group_size 是 0，应为 -1 或正数",
    "{path}: intermediate_size is {intermediate_size}, expected an even number": (
        "{path}：intermediate_size 是 {intermediate_size}，应为偶数"
    ),
    "{path}: model_type is {model_type}; our own engine reads {known}": (
        "{path}：model_type 是 {model_type}；自带引擎读取 {known}"
    ),
    "{path}: quant_method is {method}, expected 'gptq' or 'awq'": (
        "{path}：quant_method 是 {method}，应为 'gptq' 或 'awq'"
    ),
    "{path}: dynamic is not an object": "{path}：dynamic 不是对象",
    "{path}: quantization_config is not an object": "{path}：quantization_config 不是对象",
    "{path}: rope_scaling and rope_parameters differ": "{path}：rope_scaling 与 rope_parameters 不一致",
    "{path}: {name} is not an object": "{path}：{name} 不是对象",
    "{path}: {name} is of the kind {kind}; our own engine computes {known}": (
        "{path}：{name} 的类型是 {kind}；自带引擎计算 {known}"
    ),
    "{path}: {low} is {least} and {high} is {most}, expected less and more": (
        "{path}：{low} 是 {least}，{high} 是 {most}，前者应小于后者"
    ),
    "{path}: some layers are quantised in a way of their own (dynamic), which is not read": (
        "{path}：有些层以自己的方式量化（dynamic），无法读取"
    ),
    "{path}: the key {names} is missing": "{path}：缺少键 {names}",
    "{path}: the output matrix (lm_head) is quantised as well, which is not read": (
        "{path}：输出矩阵（lm_head）也已量化，无法读取"
    ),
    "{path}: the tensor {name} cannot be read: {reason}": "{path}：无法读取张量 {name}：{reason}",
    "{path}: the tensor {name} has no place in this architecture": "{path}：张量 {name} 在这个架构中没有位置",
    "{path}: the tensor {name} is missing, {index} expects it": "{path}：缺少张量 {name}，{index} 中有它",
    "{path}: the tensor {name} is {found}, expected {shape}": "{path}：张量 {name} 是 {found}，应为 {shape}",
    "{path}: {heads} heads cannot share {key_value_heads} key/value heads, expected no remainder": (
        "{path}：{heads} 个头无法均分 {key_value_heads} 个键/值头，应能整除"
    ),
    "{path}: {layer} of {outputs} by {inputs} cannot be packed": (
        "{path}：{layer}（{outputs} × {inputs}）无法打包"
    ),
    "{path}: quant_method is {method}, and {layer} is packed as {packed} packs": (
        "{path}：quant_method 是 {method}，而 {layer} 是按 {packed} 的方式打包的"
    ),
    "config.json belongs to another checkpoint": "config.json 属于另一个检查点",
    "{path}: {layer}.g_idx goes from {low} to {high}, expected groups 0 to {most}": (
        "{path}：{layer}.g_idx 从 {low} 到 {high}，组号应为 0 到 {most}"
    ),
    "{path}: {name} is {value}, which this engine does not compute with": (
        "{path}：{name} 是 {value}，这个引擎不支持"
    ),
    "{path}: {num_heads} heads of {head_dim} do not make hidden_size {hidden_size}, expected an even "
    "head size and no remainder": (
        "{path}：{num_heads} 个大小为 {head_dim} 的头凑不成 hidden_size "
        "{hidden_size}；头的大小应为偶数且没有余数"
    ),
}
