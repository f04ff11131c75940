"""An agent of the Agent Client Protocol that does what the prompt's first word says. Standard library only."""

import json
import os
import select
import subprocess
import sys
import time

SESSION = "ses_fake"
answers = 0
# Answers to other requests than the one that is waited for.
others = []


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def receive():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def ask(method, params):
    """A request of the agent; its answer. A cancellation that comes first is the answer, too."""
    global answers
    answers += 1
    send({"id": answers, "method": method, "params": {"sessionId": SESSION, **params}})
    while True:
        message = receive()
        if message.get("id") == answers and "method" not in message:
            return message.get("result", message.get("error"))
        if message.get("method") == "session/cancel":
            return "cancelled"
        others.append(message)


def update(update_kind, **fields):
    send({"method": "session/update", "params": {"sessionId": SESSION, "update": {"sessionUpdate": update_kind, **fields}}})


def say(text):
    update("agent_message_chunk", content={"type": "text", "text": text})


def permission():
    """Asks for one, and says what the answer is."""
    call = {"toolCallId": "c1", "title": "rm a", "kind": "execute", "rawInput": {"command": "rm a"}}
    options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}, {"optionId": "no", "name": "No", "kind": "reject_once"}]
    say(json.dumps(ask("session/request_permission", {"toolCall": call, "options": options})))


def perform(words):
    """What a prompt asks for. Returns the reason why the turn ends."""
    verb, rest = words[0], words[1:]
    if verb == "say":
        say(" ".join(rest))
    elif verb == "switch":
        update("config_option_update", configOptions=[{"id": "m", "category": "model", "currentValue": rest[0], "options": []}])
    elif verb == "permission":
        permission()
    elif verb == "write":
        say(json.dumps(ask("fs/write_text_file", {"path": rest[0], "content": rest[1]})))
    elif verb == "read":
        say(json.dumps(ask("fs/read_text_file", {"path": rest[0]})))
    elif verb == "terminal":
        terminal = ask("terminal/create", {"command": "sh", "args": ["-c", " ".join(rest)]})["terminalId"]
        update("tool_call", toolCallId="c1", title="run", kind="execute", status="in_progress",
               content=[{"type": "terminal", "terminalId": terminal}])
        status = ask("terminal/wait_for_exit", {"terminalId": terminal})
        output = ask("terminal/output", {"terminalId": terminal})
        update("tool_call_update", toolCallId="c1", status="completed")
        say(json.dumps({"status": status, "output": output["output"]}))
        ask("terminal/release", {"terminalId": terminal})
    elif verb == "late":
        # It is over before a tool shows it.
        terminal = ask("terminal/create", {"command": "echo", "args": rest})["terminalId"]
        ask("terminal/wait_for_exit", {"terminalId": terminal})
        update("tool_call", toolCallId="c1", title="run", kind="execute", status="in_progress",
               content=[{"type": "terminal", "terminalId": terminal}])
        update("tool_call_update", toolCallId="c1", status="completed")
    elif verb == "release":
        # Somebody still waits for it.
        terminal = ask("terminal/create", {"command": "sleep", "args": ["1000"]})["terminalId"]
        send({"id": "waits", "method": "terminal/wait_for_exit", "params": {"sessionId": SESSION, "terminalId": terminal}})
        ask("terminal/release", {"terminalId": terminal})
        again = ask("terminal/output", {"terminalId": terminal})
        while not (answers_of := [message for message in others if message.get("id") == "waits"]):
            others.append(receive())
        say(json.dumps({"status": answers_of[0]["result"], "again": again}))
    elif verb == "wait":
        say("waiting")
        while receive().get("method") != "session/cancel":
            pass
        return "cancelled"
    elif verb == "flood":
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(200):
                say("x")
        receive()
        return "cancelled"
    elif verb == "strange":
        # An update of another session, and an answer to what nobody asked.
        update_kind = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "not yours"}}
        send({"method": "session/update", "params": {"sessionId": "ses_other", "update": update_kind}})
        send({"id": 99, "result": {"stopReason": "refusal"}})
        say("mine")
    elif verb == "kill":
        terminal = ask("terminal/create", {"command": "echo $WORD; sleep 1000", "env": [{"name": "WORD", "value": "said"}]})["terminalId"]
        while "said" not in ask("terminal/output", {"terminalId": terminal})["output"]:
            pass
        ask("terminal/kill", {"terminalId": terminal})
        status = ask("terminal/wait_for_exit", {"terminalId": terminal})
        say(json.dumps([status, ask("terminal/output", {"terminalId": terminal})]))
    elif verb == "noise":
        print("npm warn something\n\n{not json", flush=True)
        say("after the noise")
    elif verb == "env":
        say(os.environ.get(rest[0], ""))
    elif verb == "learn":
        update("available_commands_update", availableCommands=[{"name": rest[0], "description": "new"}])
    elif verb == "unknown":
        say(json.dumps(ask("terminal/paint", {})))
    elif verb == "daemon":
        daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        say(str(daemon.pid))
    elif verb == "die":
        say("I am")
        print("out of memory", file=sys.stderr, flush=True)
        os._exit(9)
    elif verb == "deaf":
        say("not listening")
        while True:
            time.sleep(1000)
    return "end_turn"


def main():
    how = sys.argv[1] if len(sys.argv) > 1 else ""
    if how == "exits":
        print("no api key", file=sys.stderr)
        sys.exit(3)
    model, mode, servers = "small", "build", []
    while True:
        message = receive()
        method, number = message.get("method"), message.get("id")
        params = message.get("params", {})
        if method == "initialize":
            send({"id": number, "result": {
                "protocolVersion": 7 if how == "future" else 1,
                "agentInfo": {"name": "Fake", "version": "1.2"},
                "agentCapabilities": {"loadSession": True, "promptCapabilities": {"image": True},
                                      "sessionCapabilities": {"resume": {}} if how == "resumes" else {}},
                "authMethods": [{"id": "login", "name": "Login", "description": "run `fake login`"}],
            }})
        elif method == "session/new" and how == "login":
            send({"id": number, "error": {"code": -32000, "message": "Authentication required"}})
        elif method in ("session/new", "session/load", "session/resume"):
            if how == "early":
                ask("fs/read_text_file", {"path": "a.txt"})
            if method != "session/new":
                if params["sessionId"] != SESSION or (how == "resumes" and method == "session/load"):
                    send({"id": number, "error": {"code": -32602, "message": "no such session"}})
                    continue
                if method == "session/load":
                    say("said long ago")
            update("available_commands_update", availableCommands=[{"name": "review", "description": "look"}])
            option = {"id": "m", "category": "model", "type": "select", "currentValue": "fake/small",
                      "options": [{"value": "fake/small", "name": "S"}, {"value": "fake/large", "name": "L"},
                                  {"value": "fake/slow", "name": "never there"}, {"value": "fake/gone", "name": "refused"}]}
            servers = params["mcpServers"]
            modes = {"currentModeId": "build", "availableModes": [{"id": "build", "name": "B"}, {"id": "plan", "name": "P"}]}
            result = {"configOptions": [option], "modes": modes}
            send({"id": number, "result": {"sessionId": SESSION, **result} if method == "session/new" else result})
        elif method == "session/set_config_option":
            model = params["value"]
            if model == "fake/gone":
                send({"id": number, "error": {"code": -32603, "message": "it is gone"}})
            elif model != "fake/slow":
                send({"id": number, "result": {}})
        elif method == "session/set_mode":
            mode = params["modeId"]
            send({"id": number, "result": {}})
        elif method == "session/prompt":
            text = params["prompt"][0]["text"]
            if text.startswith("/"):
                say("command " + text)
                reason = "end_turn"
            elif text in ("model", "mode", "servers", "content"):
                facts = {"model": model, "mode": mode, "servers": json.dumps(servers), "content": json.dumps(params["prompt"])}
                say(facts[text])
                reason = "end_turn"
            else:
                reason = perform(text.split())
            usage = {"inputTokens": 5, "outputTokens": 7}
            send({"id": number, "result": {"stopReason": reason, "usage": usage}})
            if text == "later":
                say("by the way")
            if text == "background":
                permission()
        elif number is not None and method:
            send({"id": number, "error": {"code": -32601, "message": "unknown"}})


main()
